/**
 * One layer of 300 MB, encrypted and plain: the guest's own pull of each from the same registry over TLS, in turns, in
 * this process. What the encrypted one costs more is decryption, HMAC and the second digest.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cpuUsage } from 'node:process'
import { decryptionSource } from '#image/encryption/decryption-source'
import { packetUnwrapper } from '#image/encryption/unwrap'
import { encryptLayout } from '#image/node/crypt-layout'
import { pullToFolder } from '#image/node/image-folder'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { recipientsWrapper } from '#image/node/recipients'
import { parseSignaturePolicy } from '#image/policy/parse'
import { RegistryClient } from '#image/registry/client'
import { CAISSON_INDEX } from '#native/shared/programs'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { median, spread } from '../statistics.ts'
import { benchImage } from './images.ts'
import { benchRegistry, push } from './registry.ts'

const KEY_ID = 'kbs:///default/image-key/bench'
const KINDS = ['plain', 'encrypted'] as const

export interface EncryptedPullFigures {
  readonly kind: (typeof KINDS)[number]
  readonly wallS: number
  readonly wallSpread: string
  /** Of this process, all threads. */
  readonly cpuS: number
  /** Uncompressed bytes per second of wall time. */
  readonly mbPerS: number
  readonly rounds: number
}

export async function benchEncryptedPull(
  rounds: number,
  say: (line: string) => void,
): Promise<readonly EncryptedPullFigures[]> {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-bench-encrypted-'))
  const target = mkdtempSync('/dev/shm/caisson-bench-')
  try {
    const cache = join(tmpdir(), 'caisson-bench-images')
    mkdirSync(cache, { recursive: true })
    const plain = benchImage(cache, 'big', 'gzip')
    const key = randomBytes(32)
    writeFileSync(join(folder, 'key'), key)
    const recipient = `provider:attestation-agent:keyid=${KEY_ID}::keypath=${join(folder, 'key')}`
    say('encrypting')
    await encryptLayout({
      source: plain.layout,
      target: join(folder, 'encrypted'),
      wrap: recipientsWrapper([recipient]),
    })
    await using registry = await benchRegistry(folder)
    push(registry, plain.layout, 'bench/layer:plain')
    push(registry, join(folder, 'encrypted'), 'bench/layer:encrypted')
    const http = new UndiciTransport({ caPem: [readFileSync(registry.caFile, 'utf8')] })
    const client = new RegistryClient({ http, crypto: nodeCrypto })
    const pull = (kind: string) =>
      pullToFolder({
        reference: `${registry.host}/bench/layer:${kind}`,
        folder: join(target, kind),
        indexer: CAISSON_INDEX,
        registry: client,
        crypto: nodeCrypto,
        signaturePolicy: parseSignaturePolicy('{"default":[{"type":"insecureAcceptAnything"}]}'),
        decryptionOf: decryptionSource([packetUnwrapper(nodeLayerCipher, async () => Uint8Array.from(key))]),
      })
    const costs = new Map(KINDS.map((kind) => [kind, [] as { wallS: number; cpuS: number }[]]))
    // The first turn fills caches and is not counted.
    for (let round = 0; round <= rounds; round++) {
      for (const kind of KINDS) {
        rmSync(join(target, kind), { recursive: true, force: true })
        const [start, cpu] = [performance.now(), cpuUsage()]
        await pull(kind)
        const { user, system } = cpuUsage(cpu)
        const cost = { wallS: (performance.now() - start) / 1000, cpuS: (user + system) / 1e6 }
        if (round > 0) costs.get(kind)?.push(cost)
        say(`${kind}: ${cost.wallS.toFixed(2)} s`)
      }
    }
    await http.close()
    return KINDS.map((kind) => {
      const all = costs.get(kind) ?? []
      const walls = all.map(({ wallS }) => wallS)
      return {
        kind,
        wallS: median(walls),
        wallSpread: spread(walls),
        cpuS: median(all.map(({ cpuS }) => cpuS)),
        mbPerS: plain.tarBytes / 1e6 / median(walls),
        rounds,
      }
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
    rmSync(target, { recursive: true, force: true })
  }
}

export function printEncryptedPull(figures: readonly EncryptedPullFigures[]): void {
  console.log(`a layer of 300 MB, pulled as the guest does (median of ${figures[0]?.rounds ?? 0})`)
  for (const { kind, wallS, wallSpread, cpuS, mbPerS } of figures) {
    console.log(`  ${kind}: ${wallS.toFixed(2)} s (${wallSpread}), ${cpuS.toFixed(2)} CPU s, ${mbPerS.toFixed(0)} MB/s`)
  }
}
