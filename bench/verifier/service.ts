/** The verifier under test: processes over one store, what the guests need registered, and what the kernel says they use. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { encodePem } from '#attestation/x509/pem'
import { UndiciTransport } from '#protocol/node/http'
import type { CalculatedTpmCa } from '../../test/component/attestation-verifier/calculated-tpm.ts'
import {
  amd,
  INITDATA,
  intel,
  policyWith,
  snpReference,
  tdxReference,
} from '../../test/component/attestation-verifier/hardware-guests.ts'
import { referenceFor } from '../../test/component/attestation-verifier/reference.ts'
import type { VendorServer } from '../../test/component/attestation-verifier/vendor-server.ts'
import { startPostgres } from '../../test/fixtures/postgres/server.ts'
import { RESOURCE } from './guests.ts'

const PROGRAM = new URL('process.ts', import.meta.url).pathname
/** As `caisson verifier serve` is started. */
const { VERIFIER_FLAGS }: { VERIFIER_FLAGS: readonly string[] } = await import(
  new URL('../../tools/bootstrap/launcher.mjs', import.meta.url).href
)
/** Linux counts processor time in hundredths of a second. */
const TICKS_PER_SECOND = 100
/** A tenant's share of requests is a limit of its own, which is not what is measured. */
const REQUESTS_PER_MINUTE = 10_000_000

/** A place for what has to be undone, as tests have one. */
export interface Ends {
  teardown(work: () => unknown): void
}

export type StoreKind = 'sqlite' | 'postgres'

export interface ServiceOptions {
  readonly tpms: CalculatedTpmCa
  readonly vendors: VendorServer
  readonly ends: Ends
  readonly transport: 'http' | 'https'
  readonly store: StoreKind
  readonly processes: number
  /** Whether evidence is judged by a policy that names the makers of SNP and TDX. */
  readonly hardware: boolean
  /** Whether garbage is collected before memory is looked at: what is compiled then is compiled again, which costs. */
  readonly collects: boolean
}

export interface Service {
  readonly processes: readonly RunningProcess[]
  readonly caPem: string
}

/** Ends with `ends`. */
export async function startService(options: ServiceOptions): Promise<Service> {
  const { ends, tpms, vendors, transport } = options
  const directory = mkdtempSync(join(tmpdir(), 'caisson-bench-verifier-'))
  ends.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const ca = createCa({ name: 'bench' })
  const adminKey = createAdminKey()
  const settings = {
    storePath: options.store === 'sqlite' ? join(directory, 'verifier.db') : (await startPostgres(ends)).url,
    storeKey: randomBytes(32).toString('hex'),
    adminKeys: [adminKey.publicJwk],
    trustedTpmCas: [tpms.rootPem],
    collateralEndpoints: vendors.endpoints,
    trustedCollateralRoots: [amd.ark.der, amd.ask.der, intel.root.der].map((bytes) =>
      encodePem({ label: 'CERTIFICATE', bytes }),
    ),
    ...(transport === 'https'
      ? { tls: issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] }) }
      : {}),
  }
  const processes: RunningProcess[] = []
  for (let index = 0; index < options.processes; index++) processes.push(await startProcess(settings, options))
  const http = new UndiciTransport({ caPem: [ca.certificatePem] })
  const admin = new VerifierAdminClient({ http, url: processes[0]?.url ?? '', adminKey: adminKey.privateJwk })
  await admin.putTenant('default', { requestsPerMinute: REQUESTS_PER_MINUTE })
  if (options.hardware) await admin.putPolicy('bench', policyWith([amd.ark.der, intel.root.der]))
  await admin.putReference(referenceFor('guest', { initdata: INITDATA }))
  await admin.putReference(snpReference('snp', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
  await admin.putReference(tdxReference('td', {}))
  await admin.putResource(RESOURCE, Buffer.alloc(2048, 'k'))
  await http.close()
  return { processes, caPem: ca.certificatePem }
}

export interface RunningProcess {
  readonly pid: number
  readonly url: string
  memory(): Promise<NodeJS.MemoryUsage>
}

async function startProcess(settings: object, { ends, collects }: ServiceOptions): Promise<RunningProcess> {
  const profile = process.env.CAISSON_BENCH_PROFILE
  const flags = [
    ...(profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profile]),
    ...(collects ? ['--expose-gc'] : []),
  ]
  const child = spawn(process.execPath, [...VERIFIER_FLAGS, ...flags, PROGRAM, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  ends.teardown(async () => {
    child.stdin.end()
    await exited
  })
  const lines = createInterface({ input: child.stdout })
  const [url]: string[] = await once(lines, 'line')
  return {
    pid: child.pid ?? 0,
    url: url ?? '',
    memory: async () => {
      const answered: Promise<string[]> = once(lines, 'line')
      child.stdin.write('memory\n')
      const [line = ''] = await answered
      return JSON.parse(line)
    },
  }
}

/** User and system time of a process and its threads (proc(5), fields 14 and 15). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}
