import { pullToFolder } from '#image/node/image-folder'
import { parseSignaturePolicy } from '#image/policy/parse'
import { CAISSON_INDEX } from '#native/shared/programs'
import { UnavailableError } from '#protocol/errors'
import { formatReference } from '#protocol/oci/reference'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile } from '../files.ts'
import { PullProgressView } from '../pull-progress.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

/** What is pulled without a policy is verified against its digests and judged by nobody. */
const UNJUDGED = '{"default":[{"type":"insecureAcceptAnything"}]}'

export const imagePull: CommandSpec = {
  path: 'image pull',
  summary:
    'Pulls an image into a folder exactly as the guest does: manifest, configuration, layer tars with their verity ' +
    'roots, and the index to mount them by. An interrupted pull goes on where it ended.',
  operands: 'REFERENCE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...REGISTRY_OPTIONS,
    to: { type: 'string', placeholder: 'DIR', help: 'folder for the image; made if it is not there' },
    policy: { type: 'string', placeholder: 'FILE', help: 'signature policy; without one nobody judges the image' },
    layers: { type: 'string', placeholder: 'N', help: 'layers at a time', default: '2' },
    connections: { type: 'string', placeholder: 'N', help: 'connections to the registry', default: '4' },
    patience: { type: 'string', placeholder: 'SECONDS', help: 'longest stretch without progress', default: '60' },
  },
  examples: ['caisson image pull --to web --ca ca.pem --policy policy.json registry.example/shop/web:1'],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const policy = invocation.string('policy')
      const view = new PullProgressView({
        out: invocation.out,
        columns: process.stderr.isTTY && !invocation.out.json ? process.stderr.columns : undefined,
        write: (text) => void process.stderr.write(text),
        nowMs: () => performance.now(),
      })
      using interrupt = interruption()
      try {
        const image = await pullToFolder({
          reference: invocation.operand(0),
          folder: invocation.required('to'),
          indexer: CAISSON_INDEX,
          registry,
          crypto: registry.crypto,
          signaturePolicy: parseSignaturePolicy(policy === undefined ? UNJUDGED : readUserFile(policy, 'policy')),
          resolveKey: async (path: string) => new Uint8Array(readUserFile(path, 'key of the policy')),
          ...limits(invocation),
          onProgress: view.report,
          signal: interrupt.signal,
        })
        view.finish()
        const { reference, manifestDigest, layers, admittedBy } = image
        const judged = policy === undefined ? 'signatures not judged' : `admitted by ${admittedBy}`
        invocation.out.result(
          {
            reference: formatReference(reference),
            manifestDigest,
            layers: layers.length,
            admittedBy: policy && admittedBy,
          },
          `${manifestDigest}\n${layers.length} layers in ${invocation.required('to')}, ${judged}`,
        )
        return 0
      } finally {
        view.finish()
      }
    }),
}

function limits(invocation: Invocation): { parallelLayers: number; connections: number; noProgressMs: number } {
  return {
    parallelLayers: invocation.integer('layers', 1, 16),
    connections: invocation.integer('connections', 1, 32),
    noProgressMs: invocation.integer('patience', 1, 86_400) * 1000,
  }
}

/** The first SIGINT or SIGTERM ends the pull in order; the next one ends the process. */
function interruption(): Disposable & { readonly signal: AbortSignal } {
  const abort = new AbortController()
  const stop = (name: NodeJS.Signals): void => {
    release()
    abort.abort(
      new UnavailableError('ERR_PULL_INTERRUPTED', `the pull was ended by ${name}`, { hint: 'Run it again to go on.' }),
    )
  }
  const release = (): void => {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  return { signal: abort.signal, [Symbol.dispose]: release }
}
