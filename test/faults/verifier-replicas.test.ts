import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { Attester } from '#attestation/client/attester'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { referenceFor } from '../component/attestation-verifier/reference.ts'
import { bootTpm, makeTpmCa } from '../component/attestation-verifier/software-tpm.ts'
import { type FarAway, farAway } from '../fixtures/postgres/far-away.ts'
import { startPostgres } from '../fixtures/postgres/server.ts'

const INITDATA = Buffer.from('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.yaml" = "x"\n')
const REPLICAS = 3
const SECRETS = 12
/** A guest gives up on a secret when nothing but failures came for this long: then it is lost. */
const PATIENCE_MS = 120_000
const PROGRAM = new URL('../component/attestation-verifier/verifier-process.ts', import.meta.url).pathname

/** A verifier in a process of its own that can be killed, and started again on its port. */
class Replica {
  readonly port: number
  readonly #settings: object
  #child: ChildProcess | undefined

  constructor(port: number, settings: object) {
    this.port = port
    this.#settings = settings
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }

  async start(): Promise<void> {
    const settings = { ...this.#settings, listen: { host: '127.0.0.1', port: this.port } }
    const child = spawn(process.execPath, [PROGRAM, JSON.stringify(settings)], { stdio: ['pipe', 'pipe', 'ignore'] })
    this.#child = child
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}

async function setUp(t: ExecutionContext, place?: FarAway) {
  const postgres = await startPostgres(t, place)
  const tpmCa = await makeTpmCa()
  t.teardown(() => tpmCa.remove())
  const ca = createCa({ name: 'replicas' })
  const adminKey = createAdminKey()
  const settings = {
    storePath: postgres.url,
    tls: issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] }),
    adminKeys: [adminKey.publicJwk],
    trustedTpmCas: [tpmCa.rootPem],
    tpmIntermediates: [tpmCa.intermediatePem],
  }
  const ports = await Promise.all(Array.from({ length: REPLICAS }, freePort))
  const replicas = ports.map((port) => new Replica(port, settings))
  for (const replica of replicas) t.teardown(() => replica.kill())
  await Promise.all(replicas.map((replica) => replica.start()))
  const http = new UndiciTransport({ caPem: [ca.certificatePem] })
  t.teardown(() => http.close())
  const admin = new VerifierAdminClient({ http, url: replicas[0]?.url ?? '', adminKey: adminKey.privateJwk })
  await admin.putReference(referenceFor('guest', { initdata: INITDATA }))
  for (let index = 0; index < SECRETS; index++) {
    await admin.putResource(
      `once/secret/${index}`,
      Buffer.from(`secret ${index}`),
      { kind: 'attested' },
      { maxHolders: 1 },
    )
  }
  const guests = await Promise.all(
    replicas.map(async (replica) => {
      const tpm = await bootTpm(t, tpmCa, { initdata: INITDATA })
      const guest = new Attester({
        http,
        crypto: nodeCrypto,
        evidence: tpmEvidenceSource({ tpm, crypto: nodeCrypto }),
        url: replica.url,
        now: () => new Date(),
        backOff: { attempts: 1, firstDelayMs: 1, maxDelayMs: 1 },
      })
      await guest.attest({ initdataToml: INITDATA })
      return guest
    }),
  )
  return { postgres, replicas, guests, admin }
}

/** Longer than a replica waits for a statement, and than the database keeps a transaction that nobody continues. */
const CUT_MS = 15_000
/** What was on its way when the wire was cut has arrived by then, or never will. */
const SETTLED_MS = 2_000

/** Asks until the verifier gives the secret, or says that another guest has it. Whatever else happens is tried again. */
async function fetchSecret(guest: Attester, name: string): Promise<string | undefined> {
  for (const deadline = Date.now() + PATIENCE_MS; ; ) {
    try {
      return Buffer.from(await guest.getResource(name)).toString()
    } catch (error) {
      if (error instanceof VerifierRefusal && error.refusal.code === 'ERR_RESOURCE_SPENT') return undefined
      if (Date.now() > deadline) throw error
      await sleep(20)
    }
  }
}

for (const [what, fault] of [
  [
    'replicas are killed one after the other',
    async (world: Awaited<ReturnType<typeof setUp>>) => {
      for (const replica of [...world.replicas, ...world.replicas]) {
        await sleep(150)
        await replica.kill()
        await replica.start()
      }
    },
  ],
  [
    'the database is killed, twice',
    async (world: Awaited<ReturnType<typeof setUp>>) => {
      for (let round = 0; round < 2; round++) {
        await sleep(250)
        await world.postgres.kill()
        await sleep(500)
        await world.postgres.start()
      }
    },
  ],
] as const) {
  test(`while ${what}, no one-time secret is given to two guests, and none is lost`, async (t) => {
    const world = await setUp(t)
    const asking = Promise.all(
      names().map(async (name) => Promise.all(world.guests.map((guest) => fetchSecret(guest, name)))),
    )
    await Promise.all([fault(world), asking])
    const results = await asking
    results.forEach((answers, index) => {
      t.deepEqual(
        answers.filter((answer) => answer !== undefined),
        [`secret ${index}`],
      )
    })
    t.is((await world.admin.listResources()).length, SECRETS)
  })
}

test('while the database is cut off, twice, nothing is released; then no one-time secret is given to two guests, and none is lost', async (t) => {
  const wire = farAway(t)
  const { guests, admin, replicas } = await setUp(t, wire)
  let given = 0
  const ask = async (guest: Attester, name: string): Promise<string | undefined> => {
    const secret = await fetchSecret(guest, name)
    given++
    return secret
  }
  const rounds = [0, 1].map((round) => names().filter((_, index) => index % 2 === round))
  const results: (string | undefined)[][] = []
  for (const round of rounds) {
    const before = given
    const asking = Promise.all(round.map((name) => Promise.all(guests.map((guest) => ask(guest, name)))))
    // In the middle of it.
    while (given === before) await sleep(1)
    wire.cut()
    await sleep(SETTLED_MS)
    const settled = given
    await sleep(CUT_MS)
    t.is(given, settled, 'a replica that does not reach the store gives nothing and refuses nothing for good')
    t.true(settled - before < round.length * guests.length, 'the cut came before the end')
    wire.mend()
    results.push(...(await asking))
  }
  const order = rounds.flat()
  results.forEach((answers, index) => {
    t.deepEqual(
      answers.filter((answer) => answer !== undefined),
      [`secret ${order[index]?.split('/').at(-1)}`],
    )
  })
  t.is((await admin.listResources()).length, SECRETS)
  // All of them, by themselves.
  t.is(replicas.length, REPLICAS)
  for (const guest of guests) await t.notThrowsAsync(guest.attest({ initdataToml: INITDATA }))
})

function names(): readonly string[] {
  return Array.from({ length: SECRETS }, (_, index) => `once/secret/${index}`)
}
