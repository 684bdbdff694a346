/** Conditions are asked about what will run. What the host writes beside it, and what decides nothing, they never see. */
import test from 'ava'
import fc from 'fast-check'
import { type ContainerConditions, loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest, MountRequest } from '#policies/requests'
import { parseWorkloadPolicy, type WorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'
import { formatReference, parseReference } from '#protocol/oci/reference'

const OLD = `sha256:${'ab'.repeat(32)}`
const NEW = `sha256:${'cd'.repeat(32)}`
const REPOSITORY = 'registry.test:5000/shop/web'
const REQUEST: ContainerRequest = {
  containerId: 'c1',
  name: 'web',
  image: REPOSITORY,
  args: undefined,
  env: [],
  user: '',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
}

function policyWith(container: string, require: string): WorkloadPolicy {
  return parseWorkloadPolicy(`
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    ${container}
    conditions: [{ name: rule, require: ${JSON.stringify(require)} }]
`)
}

const SIGNED = `image: ${REPOSITORY}\n    signedBy: [{ key: default/keys/release }]`

/** What the guest pulls, or the field that denies. */
async function verdict(policy: WorkloadPolicy, change: Partial<ContainerRequest>): Promise<string> {
  return verdictBy(policy, await loadConditions(policy), change)
}

function verdictBy(
  policy: WorkloadPolicy,
  conditions: ContainerConditions | undefined,
  change: Partial<ContainerRequest>,
): string {
  try {
    const { reference } = new PolicyEngine(policy, conditions).admitContainer({ ...REQUEST, ...change })
    return typeof reference === 'string' ? reference : reference.resource
  } catch (error) {
    if (error instanceof DeniedError) return error.field
    throw error
  }
}

test('a tag beside a digest satisfies no condition: the digest is what is pulled', async (t) => {
  const second = policyWith(SIGNED, `request.image.startsWith("${REPOSITORY}:2.")`)
  t.is(await verdict(second, { image: `${REPOSITORY}:2.0` }), `${REPOSITORY}:2.0`)
  t.is(await verdict(second, { image: `${REPOSITORY}:2.0@${OLD}` }), 'containers.web.conditions.rule')
  t.is(await verdict(second, { image: `${REPOSITORY}@${NEW}` }), 'containers.web.conditions.rule')
  const onlyNew = policyWith(SIGNED, `request.image == "${REPOSITORY}@${NEW}"`)
  // As containerd hands on what a pod names by both.
  t.is(await verdict(onlyNew, { image: `${REPOSITORY}:2.0@${NEW}` }), `${REPOSITORY}@${NEW}`)
})

test('a reference with two digests is denied, whichever of them a condition would look at', async (t) => {
  const policy = policyWith(SIGNED, `request.image.endsWith("@${NEW}")`)
  t.is(await verdict(policy, { image: `${REPOSITORY}@${NEW}` }), `${REPOSITORY}@${NEW}`)
  for (const image of [`${REPOSITORY}@${OLD}@${NEW}`, `${REPOSITORY}@${NEW}@${NEW}`, `${REPOSITORY}:2@${OLD}@${NEW}`]) {
    t.is(await verdict(policy, { image }), 'containers.web.image', image)
  }
  const pinned = policyWith(`image: ${REPOSITORY}@${NEW}`, 'true')
  t.is(await verdict(pinned, { image: `${REPOSITORY}@${NEW}@${OLD}` }), 'containers.web.image')
})

test('a condition sees the tag that is pulled where the host names none', async (t) => {
  t.is(
    await verdict(policyWith(SIGNED, `request.image == "${REPOSITORY}:latest"`), { image: REPOSITORY }),
    `${REPOSITORY}:latest`,
  )
})

test('a condition on an image whose reference is sealed is not met: nobody knows it yet', async (t) => {
  const change = { image: 'caisson.dev/sealed:1' }
  const sealed = 'sealedImage: default/images/web'
  for (const require of ['request.image != "x"', 'request.image == "caisson.dev/sealed@"']) {
    t.is(await verdict(policyWith(sealed, require), change), 'containers.web.conditions.rule', require)
  }
  t.is(await verdict(policyWith(sealed, '!has(request.image)'), change), 'default/images/web')
})

/** Every form of a reference, and what is almost one. */
const TAGS = ['', ':2.0', ':1.0', ':latest', ':', ':2.0:1.0', ':Upper_1', ':-x', ':a b']
const DIGESTS = [
  '',
  `@${OLD}`,
  `@${NEW}`,
  `@${OLD}@${NEW}`,
  '@',
  '@@',
  `@${NEW.toUpperCase()}`,
  `@sha512:${'a'.repeat(128)}`,
]
const NAMES = [
  REPOSITORY,
  REPOSITORY.toUpperCase(),
  'registry.test/shop/web',
  'registry.test:5000/web',
  'registry.test:05000/shop/web',
  'docker.io/library/web',
  'index.docker.io/library/web',
  'docker.io/web',
  'library/web',
  'web',
  `${REPOSITORY}/`,
  ` ${REPOSITORY}`,
]
const REFERENCES = NAMES.flatMap((name) => TAGS.flatMap((tag) => DIGESTS.map((digest) => `${name}${tag}${digest}`)))
/** The digest before the tag, parts twice, and whatever else falls together. */
const REFERENCE = fc
  .array(fc.constantFrom(...NAMES, ...TAGS, ...DIGESTS, '@', ':', '/'), { maxLength: 5 })
  .map((parts) => parts.join(''))

test('whatever reference a host writes, what conditions see is what is pulled, and nothing else', async (t) => {
  // The condition's own answer about the image, told by whether a second policy with its negation denies.
  for (const repository of [REPOSITORY, 'docker.io/library/web']) {
    const seen = { admitted: 0, denied: 0, byDigest: 0 }
    const signed = `image: ${repository}\n    signedBy: [{ key: default/keys/release }]`
    const open = policyWith(signed, 'true')
    const openConditions = await loadConditions(open)
    const known = new Map<string, [WorkloadPolicy, ContainerConditions | undefined]>()
    const holds = async (image: string): Promise<boolean> => {
      const pulled = verdictBy(open, openConditions, { image })
      if (pulled.startsWith('containers.')) {
        seen.denied++
        return pulled === 'containers.web.image'
      }
      seen.admitted++
      if (pulled.includes('@')) seen.byDigest++
      // One thing decides, tag or digest, in the one repository; and the puller reads nothing else into it.
      const { tag, digest, ...place } = parseReference(pulled)
      const same = parseReference(repository)
      if ((tag === undefined) === (digest === undefined)) return false
      if (place.registry !== same.registry || place.path !== same.path) return false
      if (formatReference(parseReference(pulled)) !== pulled) return false
      const [exactly, conditions] = known.get(pulled) ?? (await exact(signed, pulled))
      known.set(pulled, [exactly, conditions])
      return verdictBy(exactly, conditions, { image }) === pulled
    }
    for (const image of REFERENCES) t.true(await holds(image), image)
    t.true(seen.admitted > 5 && seen.denied > 100 && seen.byDigest > 3, JSON.stringify(seen))
    await fc.assert(fc.asyncProperty(REFERENCE, holds), { numRuns: 1000 })
  }
})

async function exact(container: string, image: string): Promise<[WorkloadPolicy, ContainerConditions | undefined]> {
  const policy = policyWith(container, `request.image == ${JSON.stringify(image)}`)
  return [policy, await loadConditions(policy)]
}

const MOUNTS = `image: ${REPOSITORY}@${NEW}
    mounts:
      - { kind: scratch, path: /free, required: false }
      - { kind: scratch, path: /small, maxBytes: 4096, required: false }
      - { kind: tmpfs, path: /always, readOnly: true, maxBytes: 8192 }`

function asked(destination: string, change: Partial<MountRequest> = {}): Partial<ContainerRequest> {
  return { mounts: [{ kind: 'scratch', destination, readOnly: false, sizeLimitBytes: 0, ...change }] }
}

test('a condition on mounts is about those that are made, not about what the host says of them', async (t) => {
  const pulled = `${REPOSITORY}@${NEW}`
  const denied = 'containers.web.conditions.rule'
  const small = policyWith(MOUNTS, 'request.mounts.all(m, m.maxBytes <= 8192)')
  t.is(await verdict(small, asked('/small')), pulled)
  // The host's own limit holds nothing: the volume has none.
  t.is(await verdict(small, asked('/free', { sizeLimitBytes: 4096 })), denied)
  const readOnly = policyWith(MOUNTS, 'request.mounts.all(m, m.readOnly)')
  t.is(await verdict(readOnly, asked('/small', { readOnly: true })), denied)
  t.is(await verdict(readOnly, {}), pulled)
  // It is there whether the host asks for it or not.
  t.is(await verdict(policyWith(MOUNTS, 'size(request.mounts) == 0'), {}), denied)
  t.is(await verdict(policyWith(MOUNTS, 'request.mounts.exists(m, m.path == "/always")'), {}), pulled)
})

test('a condition on limits holds for a later change of them, too', async (t) => {
  const require = 'request.resources.memoryBytes >= 1073741824 && request.resources.pids < 100'
  const policy = policyWith(`image: ${REPOSITORY}@${NEW}`, require)
  const engine = new PolicyEngine(policy, await loadConditions(policy))
  const none = { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 }
  engine.admitContainer({ ...REQUEST, image: REPOSITORY, resources: { ...none, memoryBytes: 2 ** 30, pids: 10 } })
  const denied = { code: 'ERR_POLICY_DENIED', message: /^containers\.web\.conditions\.rule: / }
  t.throws(() => engine.admitLimits('c1', { ...none, memoryBytes: 2 ** 20 }), denied)
  t.throws(() => engine.admitLimits('c1', { ...none, pids: 1000 }), denied)
  // What it leaves as it is counts as it was, and what was admitted last is what it is.
  t.notThrows(() => engine.admitLimits('c1', { ...none, cpuQuotaUs: 5000, cpuPeriodUs: 10_000 }))
  t.notThrows(() => engine.admitLimits('c1', { ...none, memoryBytes: 2 ** 31 }))
})
