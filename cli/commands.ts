/** The table of sub-commands. Loaded one by one, so that starting one does not load the others. */
import type { CommandSpec } from './command.ts'

interface Entry {
  readonly summary: string
  load(): Promise<CommandSpec>
}

export const COMMANDS: Readonly<Record<string, Entry>> = {
  run: {
    summary: 'run an image in a confidential container on this machine',
    load: async () => (await import('./commands/run.ts')).run,
  },
  ps: { summary: 'list confidential containers', load: async () => (await import('./commands/ps.ts')).ps },
  logs: { summary: 'print the output of a container', load: async () => (await import('./commands/logs.ts')).logs },
  exec: {
    summary: 'run a command that the policy permits in a container',
    load: async () => (await import('./commands/exec.ts')).exec,
  },
  stop: { summary: 'end a container and its VM', load: async () => (await import('./commands/stop.ts')).stop },
  rm: {
    summary: 'remove what a crashed run left behind',
    load: async () => (await import('./commands/rm.ts')).rm,
  },
  monitor: {
    summary: 'serve the numbers of this node and its pods to Prometheus',
    load: async () => (await import('./commands/monitor.ts')).monitor,
  },
  'node serve': {
    summary: 'serve the pods of this node to containerd',
    load: async () => (await import('./commands/node-serve.ts')).nodeServe,
  },
  'node install': {
    summary: 'make this machine a node for confidential pods',
    load: async () => (await import('./commands/node-install.ts')).nodeInstall,
  },
  'node check': {
    summary: 'say what this machine lacks to run confidential pods, and how to mend it',
    load: async () => (await import('./commands/node-check.ts')).nodeCheck,
  },
  'node uninstall': {
    summary: 'take back what `node install` changed',
    load: async () => (await import('./commands/node-uninstall.ts')).nodeUninstall,
  },
  'node gc': {
    summary: 'remove what crashed pods left on this node',
    load: async () => (await import('./commands/node-gc.ts')).nodeGc,
  },
  'verifier serve': {
    summary: 'serve attestation and resources to guests',
    load: async () => (await import('./commands/verifier-serve.ts')).verifierServe,
  },
  'verifier reference-value': {
    summary: 'register, list or remove reference values',
    load: async () => (await import('./commands/verifier-reference-value.ts')).verifierReferenceValue,
  },
  'verifier policy': {
    summary: 'say what evidence a tenant accepts',
    load: async () => (await import('./commands/verifier-policy.ts')).verifierPolicy,
  },
  'verifier collateral': {
    summary: 'carry collateral of AMD and Intel to a verifier that reaches neither',
    load: async () => (await import('./commands/verifier-collateral.ts')).verifierCollateral,
  },
  'verifier resource': {
    summary: 'put, list or remove resources',
    load: async () => (await import('./commands/verifier-resource.ts')).verifierResource,
  },
  'verifier identity': {
    summary: 'say what names attested guests may have in certificates',
    load: async () => (await import('./commands/verifier-identity.ts')).verifierIdentity,
  },
  'verifier explain': {
    summary: 'say why an attestation was refused',
    load: async () => (await import('./commands/verifier-explain.ts')).verifierExplain,
  },
  'verifier tenant': {
    summary: 'create, change, list and remove tenants of a verifier',
    load: async () => (await import('./commands/verifier-tenant.ts')).verifierTenant,
  },
  'verifier backup': {
    summary: 'write all that a verifier’s store holds to a file',
    load: async () => (await import('./commands/verifier-backup.ts')).verifierBackup,
  },
  'verifier restore': {
    summary: 'fill an empty store from a backup',
    load: async () => (await import('./commands/verifier-backup.ts')).verifierRestore,
  },
  'verifier rekey': {
    summary: 'give the verifier’s store another key',
    load: async () => (await import('./commands/verifier-rekey.ts')).verifierRekey,
  },
  'verifier audit': {
    summary: 'list the audit log, or verify that nothing in it was changed',
    load: async () => (await import('./commands/verifier-audit.ts')).verifierAudit,
  },
  'evidence verify': {
    summary: 'judge a report, quote or evidence document',
    load: async () => (await import('./commands/evidence-verify.ts')).evidenceVerify,
  },
  'measure tpm': {
    summary: 'predict the PCRs of a guest before it boots',
    load: async () => (await import('./commands/measure-tpm.ts')).measureTpm,
  },
  'measure snp': {
    summary: 'predict the launch digest of an SEV-SNP guest',
    load: async () => (await import('./commands/measure-snp.ts')).measureSnp,
  },
  'measure tdx': {
    summary: 'predict MRTD and RTMRs of a TDX guest',
    load: async () => (await import('./commands/measure-tdx.ts')).measureTdx,
  },
  'measure release': {
    summary: 'sign the reference values of a release',
    load: async () => (await import('./commands/measure-release.ts')).measureRelease,
  },
  'measure id-block': {
    summary: 'make the signed identity of an SEV-SNP guest',
    load: async () => (await import('./commands/measure-id-block.ts')).measureIdBlock,
  },
  'initdata create': {
    summary: 'write the configuration that is bound to a guest',
    load: async () => (await import('./commands/initdata.ts')).initdataCreate,
  },
  'initdata digest': {
    summary: 'print the digest that the measurement contains',
    load: async () => (await import('./commands/initdata.ts')).initdataDigest,
  },
  'initdata keygen': {
    summary: 'make a key pair for reasons of refusals',
    load: async () => (await import('./commands/initdata-keygen.ts')).initdataKeygen,
  },
  explain: {
    summary: 'say why a guest refused something, from its sealed reason',
    load: async () => (await import('./commands/explain.ts')).explain,
  },
  'policy test': {
    summary: 'run requests with expected verdicts against a policy',
    load: async () => (await import('./commands/policy-test.ts')).policyTest,
  },
  'policy explain': {
    summary: 'say why a policy denies a request, and what would admit it',
    load: async () => (await import('./commands/policy-explain.ts')).policyExplain,
  },
  'policy diff': {
    summary: 'say what a changed policy newly allows and denies',
    load: async () => (await import('./commands/policy-diff.ts')).policyDiff,
  },
  'policy flatten': {
    summary: 'write the one document that a guest gets of a policy in several files',
    load: async () => (await import('./commands/policy-flatten.ts')).policyFlatten,
  },
  'policy generate': {
    summary: 'write the workload policy of a pod from its Kubernetes YAML',
    load: async () => (await import('./commands/policy-generate.ts')).policyGenerate,
  },
  'policy check': {
    summary: 'check a workload policy and say what it permits',
    load: async () => (await import('./commands/policy-check.ts')).policyCheck,
  },
  'image keygen': {
    summary: 'make a key pair for signing images',
    load: async () => (await import('./commands/image-keygen.ts')).imageKeygen,
  },
  'image push': {
    summary: 'push an OCI layout folder to a registry',
    load: async () => (await import('./commands/image-push.ts')).imagePush,
  },
  'image pull': {
    summary: 'pull an image into a folder as the guest does',
    load: async () => (await import('./commands/image-pull.ts')).imagePull,
  },
  'image mount': {
    summary: 'mount a pulled image, verified',
    load: async () => (await import('./commands/image-mount.ts')).imageMount,
  },
  'image sign': {
    summary: 'sign an image in cosign’s format',
    load: async () => (await import('./commands/image-sign.ts')).imageSign,
  },
  'image verify': {
    summary: 'judge an image by a signature policy',
    load: async () => (await import('./commands/image-verify.ts')).imageVerify,
  },
  'image encrypt': {
    summary: 'encrypt the layers of an OCI layout',
    load: async () => (await import('./commands/image-encrypt.ts')).imageEncrypt,
  },
  'image decrypt': {
    summary: 'decrypt the layers of an OCI layout',
    load: async () => (await import('./commands/image-decrypt.ts')).imageDecrypt,
  },
  'image inspect': {
    summary: 'print digest, platform, layers and configuration of an image',
    load: async () => (await import('./commands/image-inspect.ts')).imageInspect,
  },
  'guest build': {
    summary: 'build the guest kernel and root filesystem',
    load: async () => (await import('./commands/guest.ts')).guestBuild,
  },
  'guest inspect': {
    summary: 'print what is in the guest image',
    load: async () => (await import('./commands/guest.ts')).guestInspect,
  },
  'guest diff': {
    summary: 'explain the difference of two built guests',
    load: async () => (await import('./commands/guest-diff.ts')).guestDiff,
  },
}
