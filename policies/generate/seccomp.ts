/** `seccompProfile` of a container or its pod as a rule of the policy. Whatever it says, the guest's own filter holds. */
import { SYSTEM_CALLS } from '../seccomp-rule.ts'
import { type Draft, OpenChoice, Remarked } from './draft.ts'
import { type KubeObject, objectOf, objectsOf, text, textsOf } from './kubernetes-objects.ts'

/** Text of a profile by its `localhostProfile`; undefined where it was not given. */
export type SeccompProfiles = (name: string) => string | undefined

/** Undefined: the policy's default. */
export function seccompOf(security: KubeObject, podSecurity: KubeObject, profiles: SeccompProfiles): Draft | undefined {
  const profile = objectOf(security.seccompProfile) ?? objectOf(podSecurity.seccompProfile)
  switch (text(profile?.type)) {
    case undefined:
      return undefined
    case 'RuntimeDefault':
      return 'runtime-default'
    case 'Unconfined':
      return new Remarked('guest', 'Unconfined lies with no pod: the guest’s own filter holds for all containers')
    case 'Localhost':
      return localhostRule(text(profile?.localhostProfile) ?? '', profiles)
    default:
      return new OpenChoice(`which system calls: seccompProfile has the unknown type ${text(profile?.type)}`)
  }
}

function localhostRule(name: string, profiles: SeccompProfiles): Draft {
  const profile = profiles(name)
  const rule = profile === undefined ? undefined : ruleOf(profile)
  return rule ?? new OpenChoice(`the system calls of the node's profile ${name}: { allow: […] }, { deny: […] }`)
}

/** Undefined where a list of names would not say the same. */
function ruleOf(json: string): Draft | undefined {
  const profile = objectOf(parsed(json))
  const rules = objectsOf(profile?.syscalls)
  const [byDefault, actions] = [text(profile?.defaultAction), new Set(rules.map(({ action }) => text(action)))]
  if (rules.some((rule) => !isPlain(rule)) || actions.size !== 1) return undefined
  // One that this machine does not have needs no denial, and no permission.
  const all = rules.flatMap(({ names: list }) => textsOf(list) ?? []).filter((name) => SYSTEM_CALLS.has(name))
  const names = [...new Set(all)].sort()
  const [action] = actions
  // A container without any call does not start: that is not what somebody meant.
  if (isRefusal(byDefault) && action === 'SCMP_ACT_ALLOW') return names.length === 0 ? undefined : { allow: names }
  if (byDefault !== 'SCMP_ACT_ALLOW' || !isRefusal(action)) return undefined
  return names.length === 0 ? 'guest' : { deny: names }
}

function isRefusal(action: string | undefined): boolean {
  return action !== undefined && /^SCMP_ACT_(ERRNO|KILL|KILL_PROCESS|KILL_THREAD|TRAP)$/.test(action)
}

/** About all arguments, on every machine and whatever the capabilities. */
function isPlain(rule: KubeObject): boolean {
  const empty = (value: unknown): boolean => {
    return value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0)
  }
  return empty(rule.args) && empty(rule.includes) && empty(rule.excludes)
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}
