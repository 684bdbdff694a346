/**
 * npm run bench [-- --rounds N] [--only boot|encrypted|evidence|image-trust|kubernetes|policy|pull|shim|verifier|
 * verifier-memory] [--places memory,disk] [--part times|network|memory] [--pods 1,10,30]: prints each figure beside its
 * peer of the same run, and writes bench/results/*.json. Parts and pods are those of kubernetes.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { type BootFigures, benchBoot } from './boot.ts'
import { benchEvidence, printEvidence } from './evidence.ts'
import { benchImageTrust, printImageTrust } from './image-trust.ts'
import { benchPolicy, printPolicy } from './policy.ts'
import { benchShim, printShim } from './shim.ts'
import { benchVerifier, benchVerifierMemory, printVerifier } from './verifier/main.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
    places: { type: 'string' },
    part: { type: 'string' },
    pods: { type: 'string', default: '1,10' },
  },
})
const rounds = Math.max(1, Number.parseInt(values.rounds, 10) || 5)
const say = (line: string): void => console.error(line)
const wanted = (part: string): boolean => values.only === undefined || values.only === part
if (wanted('evidence')) {
  // Short turns: many of them cost little.
  const evidence = await benchEvidence(3 * rounds, say)
  printEvidence(evidence)
  write('evidence.json', evidence)
}
if (wanted('image-trust')) {
  const trust = await benchImageTrust(rounds, say)
  printImageTrust(trust)
  write('image-trust.json', trust)
}
if (wanted('verifier')) {
  const verifier = await benchVerifier(20 * rounds, say)
  printVerifier(verifier)
  write('verifier.json', verifier)
}
if (wanted('policy')) {
  const policy = await benchPolicy(3 * rounds, say)
  printPolicy(policy)
  write('policy.json', policy)
}
if (values.only === 'verifier-memory') {
  const memory = await benchVerifierMemory(10_000 * rounds, say)
  printVerifier(memory)
  write('verifier-memory.json', memory)
}
if (wanted('shim')) {
  const shim = await benchShim(5 * rounds, say)
  printShim(shim)
  write('shim.json', shim)
}
if (wanted('kubernetes')) {
  const { benchKubernetes, partsOf } = await import('./kubernetes/main.ts')
  const counts = values.pods.split(',').map(Number)
  await benchKubernetes({ rounds, say, counts, parts: partsOf(values.part), write })
}
if (wanted('boot')) {
  const boot = await benchBoot(rounds, say)
  print(boot)
  write('boot.json', boot)
}
if (wanted('encrypted')) {
  const { benchEncryptedPull, printEncryptedPull } = await import('./pull/encrypted.ts')
  const encrypted = await benchEncryptedPull(rounds, say)
  printEncryptedPull(encrypted)
  write('encrypted.json', encrypted)
}
if (wanted('pull')) {
  const { benchPull } = await import('./pull/main.ts')
  const places = values.places === undefined ? {} : { places: values.places.split(',') }
  write('pull.json', await benchPull({ rounds, say, ...places }))
}

function write(name: string, figures: unknown): void {
  const results = new URL('results/', import.meta.url)
  mkdirSync(results, { recursive: true })
  writeFileSync(new URL(name, results), `${JSON.stringify(figures, null, 2)}\n`)
}

function print(boot: BootFigures): void {
  for (const [platform, stages] of Object.entries(boot.stages)) {
    const text = Object.entries(stages).map(([stage, ms]) => `${stage} ${ms.toFixed(0)} ms`)
    console.log(`boot, platform ${platform} (median of ${boot.rounds}): ${text.join(', ')}`)
  }
  console.log(
    `kernel to agent ready: ${boot.agentReadyMs.toFixed(0)} ms; Node that does nothing: ${boot.bareNodeMs.toFixed(0)} ms`,
  )
  console.log(`  ratio ${boot.ratio.toFixed(2)} (target at most 1.3)`)
  console.log(
    `agent: ${boot.agentAnonymousMib.toFixed(1)} MiB anonymous (target at most 25), ${boot.agentResidentMib.toFixed(1)} MiB resident`,
  )
  for (const { name, pssMib, anonymousMib } of boot.host) {
    console.log(`host: ${name} ${pssMib.toFixed(1)} MiB PSS, ${anonymousMib.toFixed(1)} MiB anonymous`)
  }
  console.log(
    `guest: kernel ${(boot.kernelBytes / 1e6).toFixed(1)} MB (target at most 7), root ${(boot.rootBytes / 2 ** 20).toFixed(1)} MiB (target at most 80)`,
  )
}
