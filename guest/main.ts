/**
 * Entry of the guest's agent: the machine's parts, put together. Only what the first answer needs is loaded before the
 * agent listens; the rest comes with the first request that needs it.
 */
import { readFileSync } from 'node:fs'
import { runAgent } from './agent/agent.ts'
import { nodePlatform } from './platform/node/platform.ts'

const VERSION = '0.1.0'
const INDEXER = '/usr/lib/caisson/caisson-index'

/** The measured command line decides, and nothing that the host can change later. */
function platformName(): 'tpm' | 'none' {
  const words = readFileSync('/proc/cmdline', 'latin1').trim().split(/\s+/)
  const names = words.filter((word) => word.startsWith('caisson.platform=')).map((word) => word.slice(17))
  if (names.length === 1 && (names[0] === 'tpm' || names[0] === 'none')) return names[0]
  throw new Error('the command line does not name one known platform')
}

const platform = nodePlatform({ tpm: platformName() === 'tpm' })

runAgent({
  platform,
  version: VERSION,
  imageTools: async () => {
    const { nativeEngine } = await import('#image/node/native-engine')
    const { nodeLayerCipher } = await import('#image/node/layer-cipher')
    const { lazySignatureEngines } = await import('./platform/node/signature-engines.ts')
    return { engine: nativeEngine, indexer: INDEXER, cipher: nodeLayerCipher, engines: lazySignatureEngines() }
  },
  createVerifier: async ({ url, caPem, hosts }) => {
    const { Attester } = await import('#attestation/client/attester')
    const { tpmEvidenceSource } = await import('#attestation/client/tpm-evidence-source')
    const { tpm, crypto, clock } = platform
    if (tpm === undefined) throw new Error('no TPM')
    const http = await platform.network.http([caPem], hosts)
    const sleep = (ms: number, signal?: AbortSignal) => clock.sleep(ms, signal)
    return new Attester({
      http,
      crypto,
      evidence: tpmEvidenceSource({ tpm, crypto }),
      url,
      now: () => clock.now(),
      sleep,
    })
  },
}).catch((error: unknown) => {
  // Reaches a console only when the measured command line asks for debugging.
  console.error(error)
  platform.consoleCode('agent-error')
  process.exit(1)
})
