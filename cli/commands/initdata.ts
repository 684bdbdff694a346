import { createHash } from 'node:crypto'
import { parseWorkloadPolicy } from '#policies/workload'
import { encodeInitdata, type Initdata, MAX_PULL_CONNECTIONS, MAX_PULL_LAYERS, parseInitdata } from '#protocol/initdata'
import type { CommandSpec, Invocation, OptionSpec } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { readPolicyFile } from '../policy-file.ts'

/** Options shared by `initdata create`, `measure tpm` and `run`: equal values give equal bytes, hence an equal digest. */
export const INITDATA_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  policy: { type: 'string', placeholder: 'FILE', help: 'workload policy (YAML)' },
  'verifier-url': { type: 'string', placeholder: 'URL', help: 'https URL of the verifier' },
  'verifier-ca': {
    type: 'string',
    placeholder: 'FILE',
    help: 'PEM of the CA that the verifier’s certificate chains to',
  },
  'registry-ca': { type: 'string', placeholder: 'FILE', multiple: true, help: 'PEM of a CA that registries may use' },
  'image-policy': {
    type: 'string',
    placeholder: 'RESOURCE',
    help: 'repository/type/tag of the image signature policy at the verifier',
  },
  'registry-credentials': {
    type: 'string',
    placeholder: 'RESOURCE',
    help: 'repository/type/tag of the registry credentials at the verifier',
  },
  'signature-storage': {
    type: 'string',
    placeholder: 'RESOURCE',
    help: 'repository/type/tag of a registries.d file: where OpenPGP signatures are kept',
  },
  'registries-conf': {
    type: 'string',
    placeholder: 'RESOURCE',
    help: 'repository/type/tag of a registries.conf: mirrors, locations and blocks',
  },
  'registry-proxy': { type: 'string', placeholder: 'URL', help: 'HTTP proxy on the way to registries; it is public' },
  'registry-no-proxy': { type: 'string', placeholder: 'HOSTS', help: 'hosts reached without it: a.example,.b.example' },
  'pull-layers': { type: 'string', placeholder: 'N', help: 'layers that an image’s pull has at a time in the guest' },
  'pull-connections': { type: 'string', placeholder: 'N', help: 'connections to registries that it has at a time' },
  'tenant-key': {
    type: 'string',
    placeholder: 'FILE',
    help: 'public key (PREFIX.pub.jwk) to which the guest seals reasons of refusals; without it only the verifier is told',
  },
}

/** The initdata that these options describe. Throws on a malformed policy before anything uses it. */
export function initdataFromOptions(invocation: Invocation): Uint8Array {
  const policyYaml = readPolicyFile(invocation.required('policy'))
  return initdataWith(invocation, policyYaml)
}

/** The same with a policy at hand. */
export function initdataWith(invocation: Invocation, policyYaml: string): Uint8Array {
  parseWorkloadPolicy(policyYaml)
  return encoded(invocation, policyYaml)
}

/** Throws as `initdataWith` would for every option, before there is a policy. */
export function checkInitdataOptions(invocation: Invocation): void {
  encoded(invocation, 'the policy is not known yet')
}

function encoded(invocation: Invocation, policyYaml: string): Uint8Array {
  const url = invocation.string('verifier-url')
  const tenantKey = invocation.string('tenant-key')
  return encodeInitdata({
    verifier:
      url === undefined
        ? undefined
        : { url, caPem: readUserFile(invocation.required('verifier-ca'), 'CA certificate').toString('utf8') },
    registryCaPem: invocation
      .strings('registry-ca')
      .map((path) => readUserFile(path, 'CA certificate').toString('utf8')),
    imagePolicyResource: invocation.string('image-policy'),
    registryCredentialsResource: invocation.string('registry-credentials'),
    signatureStorageResource: invocation.string('signature-storage'),
    registriesConfResource: invocation.string('registries-conf'),
    registryProxy: registryProxy(invocation),
    pulls: {
      layers: optionalCount(invocation, 'pull-layers', MAX_PULL_LAYERS),
      connections: optionalCount(invocation, 'pull-connections', MAX_PULL_CONNECTIONS),
    },
    policyYaml,
    tenantKeyJwk: tenantKey === undefined ? undefined : readUserFile(tenantKey, 'tenant key').toString('utf8').trim(),
  })
}

function registryProxy(invocation: Invocation): Initdata['registryProxy'] {
  const url = invocation.string('registry-proxy')
  const hosts = invocation.string('registry-no-proxy') ?? ''
  return url === undefined ? undefined : { url, noProxy: hosts.split(',').filter((name) => name !== '') }
}

function optionalCount(invocation: Invocation, name: string, most: number): number | undefined {
  return invocation.string(name) === undefined ? undefined : invocation.integer(name, 1, most)
}

/** SHA-256 of the exact bytes, lower-case hex. */
export function initdataDigestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export const initdataCreate: CommandSpec = {
  path: 'initdata create',
  summary: 'Writes the public configuration that a guest is bound to: where its verifier is, what it may run.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...INITDATA_OPTIONS,
    output: { type: 'string', short: 'o', placeholder: 'FILE', help: 'where to write it' },
  },
  examples: [
    'caisson initdata create --policy policy.yaml --verifier-url https://verifier.example:8443 --verifier-ca ca.pem -o initdata.toml',
  ],
  run: async (invocation) => {
    const bytes = initdataFromOptions(invocation)
    const output = invocation.required('output')
    writeUserFile(output, bytes)
    const digest = initdataDigestOf(bytes)
    invocation.out.result(
      { file: output, bytes: bytes.byteLength, digest: `sha256:${digest}` },
      `sha256:${digest}  ${output}`,
    )
    return 0
  },
}

export const initdataDigest: CommandSpec = {
  path: 'initdata digest',
  summary: 'Checks an initdata file and prints the digest that the guest’s measurement contains.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {},
  examples: ['caisson initdata digest initdata.toml'],
  run: async (invocation) => {
    const bytes = readUserFile(invocation.operand(0), 'initdata')
    parseInitdata(bytes)
    const digest = `sha256:${initdataDigestOf(bytes)}`
    invocation.out.result({ digest, bytes: bytes.byteLength }, digest)
    return 0
  },
}
