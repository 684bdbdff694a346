import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { encodePem } from '#attestation/x509/pem'
import { ANNOTATION } from '#host-shim/node/annotations'
import { inspectImage } from '#image/node/inspect'
import { parseSigningKey } from '#image/signature/public-key'
import { RESOURCE_NAME } from '#policies/env-rule'
import type { ImageFacts } from '#policies/generate/container'
import { injectPod } from '#policies/generate/inject'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { type GeneratedPolicy, generatePolicy, imagesOf } from '#policies/generate/pod'
import type { KeySigner } from '#policies/image-rule'
import { UsageError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { type VolumeFile, volumeDigest } from '#protocol/volume-content'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'
import { checkInitdataOptions, INITDATA_OPTIONS, initdataWith } from './initdata.ts'

const { policy: _generated, ...INITDATA_WITHOUT_POLICY } = INITDATA_OPTIONS

export const policyGenerate: CommandSpec = {
  path: 'policy generate',
  summary:
    'Writes the workload policy of a pod from its Kubernetes YAML (Pod, Deployment, ReplicaSet, StatefulSet, DaemonSet,\nJob, CronJob; with ConfigMaps and Secrets). What cannot be known is left as a marked choice, never guessed.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    file: { type: 'string', short: 'f', placeholder: 'FILE', multiple: true, help: 'YAML; several documents are fine' },
    workload: { type: 'string', placeholder: 'KIND/NAME', help: 'which one, where the files have several' },
    output: {
      type: 'string',
      short: 'o',
      placeholder: 'FILE',
      help: 'where to write the policy; default: standard output',
    },
    'output-dir': { type: 'string', placeholder: 'DIR', help: 'one policy for each workload, DIR/NAME.policy.yaml' },
    inject: {
      type: 'string',
      placeholder: 'FILE',
      help: 'write the YAML of the workload with its initdata annotation and RuntimeClass to FILE, once the policy is ready',
    },
    logs: { type: 'boolean', help: 'let the host read the output of the containers' },
    'signed-by': {
      type: 'string',
      placeholder: 'KEY',
      help: 'images without a digest: any that this key signed (repository/type/tag, or a PEM file); default: pin them',
    },
    'seccomp-profiles': {
      type: 'string',
      placeholder: 'DIR',
      help: 'where Localhost seccomp profiles lie, as on a node; default: their system calls stay choices',
    },
    offline: { type: 'boolean', help: 'do not ask registries: digests and entrypoints stay choices' },
    ...REGISTRY_OPTIONS,
    ...INITDATA_WITHOUT_POLICY,
  },
  examples: [
    'caisson policy generate -f deployment.yaml -f configmap.yaml --ca registry-ca.pem -o policy.yaml',
    'caisson policy generate -f shop.yaml --inject shop-confidential.yaml -o policy.yaml --verifier-url https://verifier.example:8443 --verifier-ca ca.pem',
  ],
  run: async (invocation) => {
    const files = invocation
      .strings('file')
      .map((name) => ({ name, text: readUserFile(name, 'YAML').toString('utf8') }))
    if (files.length === 0) throw usage('give at least one file with -f')
    const objects = parseKubernetesFiles(files)
    const wanted = invocation.string('workload')
    const pods = objects.templates.filter(({ owner }) => wanted === undefined || owner === wanted)
    if (pods.length === 0)
      throw usage(wanted === undefined ? 'the files hold no workload' : `the files hold no ${wanted}`)
    if (pods.length > 1 && invocation.string('output-dir') === undefined) {
      throw usage(
        `the files hold ${pods.map(({ owner }) => owner).join(', ')}: choose one with --workload, or use --output-dir`,
      )
    }
    checkTargets(invocation, pods.length)
    const facts = await imageFacts(invocation, [...new Set(pods.flatMap(imagesOf))])
    const options = {
      image: (reference: string) => facts.get(reference),
      logs: invocation.flag('logs'),
      ...signerOption(invocation),
      seccompProfiles: (name: string) => profileText(invocation.string('seccomp-profiles'), name),
      digest: (content: readonly VolumeFile[]) => volumeDigest(nodeCrypto, content),
    }
    const policies = pods.map((pod) => generatePolicy(pod, objects, options))
    const code = report(invocation, policies)
    const target = invocation.string('inject')
    const [pod, policy] = [pods[0], policies[0]]
    if (target === undefined || pod === undefined || policy === undefined) return code
    if (code !== 0) {
      invocation.out.progress(`${target} is not written: ${openText(policy)}`)
      return code
    }
    const initdata = gzipSync(initdataWith(invocation, policy.yaml), { level: 9 })
    const annotation = { name: ANNOTATION.initdata, value: initdata.toString('base64') }
    const file = files.find(({ name }) => name === pod.place.file)
    writeUserFile(target, injectPod(file?.text ?? '', pod, { annotation, runtimeClass: 'caisson' }))
    invocation.out.progress(`wrote ${target}`)
    return code
  },
}

/** The policy is public, so a file is written into it as the one public key that it holds, or not at all. */
/** What is wrong with the options is said before registries are asked and files are written. */
function checkTargets(invocation: Invocation, workloads: number): void {
  const [folder, file] = [invocation.string('output-dir'), invocation.string('output')]
  if (folder !== undefined && file !== undefined) throw usage('give either --output or --output-dir')
  if (invocation.string('inject') === undefined) return
  if (workloads > 1) throw usage('--inject takes one workload: choose it with --workload')
  checkInitdataOptions(invocation)
}

/** Why no guest accepts the policy as it is. */
function openText({ choices, refusals }: GeneratedPolicy): string {
  const count = (list: readonly unknown[], one: string, many: string): string[] =>
    list.length === 0 ? [] : [`${list.length} ${list.length === 1 ? one : many}`]
  const reasons = [
    ...count(choices, 'choice is open', 'choices are open'),
    ...count(refusals, 'thing is asked for that no guest gives', 'things are asked for that no guest gives'),
  ]
  return reasons.join(', ')
}

function signerOption(invocation: Invocation): { readonly signedBy?: KeySigner } {
  const key = invocation.string('signed-by')
  if (key === undefined) return {}
  if (existsSync(key)) {
    const { spki } = parseSigningKey(readUserFile(key, 'public key'), `--signed-by ${key}`)
    return { signedBy: { kind: 'key-data', pem: encodePem({ label: 'PUBLIC KEY', bytes: spki }) } }
  }
  if (RESOURCE_NAME.test(key)) return { signedBy: { kind: 'key', resource: key } }
  throw usage(`--signed-by ${key} is neither a file nor a resource (repository/type/tag)`)
}

/** As the kubelet finds it. */
function profileText(folder: string | undefined, name: string): string | undefined {
  return folder === undefined ? undefined : readUserFile(join(folder, name), 'seccomp profile').toString('utf8')
}

/** Exit code 1 while choices are open or the pod asks for what no guest gives: the policy is not ready to be used. */
function report(invocation: Invocation, policies: readonly GeneratedPolicy[]): number {
  const [file, folder] = [invocation.string('output'), invocation.string('output-dir')]
  for (const policy of policies) {
    for (const { path, question } of policy.choices) invocation.out.progress(`choose  ${path}: ${question}`)
    for (const { path, reason, remedy } of policy.refusals)
      invocation.out.progress(`refused ${path}: ${reason}. ${remedy}`)
    for (const note of policy.notes) invocation.out.progress(`note    ${note}`)
    if (folder !== undefined) {
      mkdirSync(folder, { recursive: true })
      writeUserFile(join(folder, `${policy.name}.policy.yaml`), policy.yaml)
    } else if (file !== undefined) writeUserFile(file, policy.yaml)
  }
  const written = file ?? folder
  invocation.out.result(
    policies,
    written === undefined ? policies.map(({ yaml }) => yaml.trimEnd()).join('\n---\n') : `wrote ${written}`,
  )
  return policies.every(({ choices, refusals }) => choices.length + refusals.length === 0) ? 0 : 1
}

async function imageFacts(invocation: Invocation, references: readonly string[]): Promise<Map<string, ImageFacts>> {
  const facts = new Map<string, ImageFacts>()
  if (invocation.flag('offline')) return facts
  await withRegistry(invocation, async (registry) => {
    for (const reference of references) {
      invocation.out.progress(`asking for ${reference}`)
      const image = await inspectImage({ reference, registry })
      facts.set(reference, { pinned: image.reference, entrypoint: image.config.entrypoint })
    }
    return 0
  })
  return facts
}

function usage(problem: string): UsageError {
  return new UsageError('ERR_USAGE', problem, { hint: 'See `caisson policy generate --help`.' })
}
