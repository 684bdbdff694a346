/**
 * Random canaries in everything that a workload keeps to itself, then a search through everything that its host had.
 *
 * The host is a process of its own, `caisson run`, with what it starts; it has one folder, and its temporary files go
 * there. Tenant (verifier, in this process) and registry are not the host. Two things are left out, as THREAT_MODEL.md
 * says: QEMU's memory, and mappings of guest RAM in other processes. On this platform the host can read guest memory;
 * the test shows that, too, because it proves that the canaries were there and that the search finds them.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { linkSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { identifyProcess } from '#host-shim/pod/process-identity'
import { caisson, canaryWorkload, Host, POD } from './fixtures/canary-host.ts'
import { LoopbackCapture, sendOverLoopback } from './fixtures/loopback.ts'
import { formsOf, isGuestMemory, mappingsOf, programOf, Search, statesOf } from './fixtures/search.ts'
import { REGISTRY_NAME, VERIFIER_NAME } from './fixtures/tenant.ts'

/** Part of each canary of this run: whoever finds one finds this. Letters and digits, so that no encoding escapes them. */
const tag = `Canary${randomBytes(12).toString('hex')}`

function only(pids: readonly number[], program: string): number {
  const [pid] = pids.filter((candidate) => programOf(candidate) === program)
  if (pid === undefined) throw new Error(`the host runs no ${program}`)
  return pid
}

/** What else appeared in the machine's temporary folders; folders of tests have names of their own and are not the host's. */
function strayFiles(before: ReadonlySet<string>): readonly string[] {
  return temporaryEntries().filter(
    (path) => !before.has(path) && !/\/(caisson-|bash_jobs)/.test(path) && lstatSync(path).isFile(),
  )
}

function temporaryEntries(): string[] {
  return [tmpdir(), '/var/tmp', '/dev/shm'].flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
}

test('the search finds a canary in each form, across chunks, in files, names, words, environment and memory', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-search-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const word = `Canary${randomBytes(12).toString('hex')}`
  const search = new Search(formsOf(word))
  for (const [name, bytes] of [
    ['plain', Buffer.from(`x${word}x`)],
    ['UTF-16', Buffer.from(`x${word}x`, 'utf16le')],
    ['hex', Buffer.from(Buffer.from(`?${word}?`).toString('hex'))],
    ['upper-case hex', Buffer.from(Buffer.from(`?${word}?`).toString('hex').toUpperCase())],
    ...[0, 1, 2].map(
      (before) =>
        [
          `base64 at ${before}`,
          Buffer.from(Buffer.from(`${'>'.repeat(before)}${word}~~~`).toString('base64')),
        ] as const,
    ),
  ] as const) {
    const file = join(folder, 'file')
    for (const at of [0, 100, 8 * 1024 * 1024 - 10]) {
      writeFileSync(file, Buffer.concat([Buffer.alloc(at), bytes]))
      t.deepEqual(search.file(file), [name], `${name} at ${at}`)
    }
    rmSync(file)
  }
  t.deepEqual(search.folder(folder), [])
  writeFileSync(join(folder, word), '')
  t.is(search.folder(folder).length, 1)
  const child = spawn('sleep', ['600'], { env: { WORD: word } })
  t.teardown(() => child.kill())
  await once(child, 'spawn')
  const pid = child.pid ?? 0
  // Before it sleeps its loader lays libraries out, and a mapping beyond a file's end cannot be read.
  while (statesOf(pid)[0] !== 'S') await setTimeout(1)
  t.deepEqual(search.words(pid), ['environ of sleep: plain'])
  t.deepEqual(
    search.memory(pid, () => true),
    ['memory of sleep, [stack]: plain'],
  )
  t.deepEqual(
    search.memory(pid, (name) => name !== '[stack]'),
    [],
  )
})

test.serial('nothing that a workload keeps to itself is anywhere on its host', async (t) => {
  const before = new Set(temporaryEntries())
  const { tenant, image, folder, tenantKey } = await canaryWorkload(t, tag)
  const digest = image.slice(image.indexOf('sha256:'))
  const canaries = new Search(formsOf(tag))
  t.deepEqual(canaries.file(tenant.path('workload')), [], 'the workload’s own canaries are masked in its program')
  t.true(canaries.folder(tenant.path('registry-data')).length >= 2, 'the registry has layer and configuration in plain')

  const loopback = await LoopbackCapture.start(t, join(folder, 'loopback'))
  const planted = `Planted${randomBytes(12).toString('hex')}`
  await sendOverLoopback(planted)
  const host = new Host(t, { folder, tpmCa: tenant.path('tpm-ca'), image })
  t.is(await host.ask('r'), 'ready 111\n')

  const pids = host.processes
  const programs = { owner: host.process.pid ?? 0, pod: only(pids, 'caisson-pod'), tpm: only(pids, 'swtpm') }
  const vmm = only(pids, 'qemu-system-x86_64')
  const notGuestMemory = (name: string): boolean => !isGuestMemory(name)
  const known = (words: readonly string[]): Search =>
    new Search(new Map(words.map((word) => [word, Buffer.from(word)])))

  // While it runs: words and environment of all, memory of all but QEMU, files that are removed at the end.
  for (const pid of pids) t.deepEqual(canaries.words(pid), [])
  for (const [name, pid] of Object.entries(programs)) {
    t.deepEqual(canaries.memory(pid, notGuestMemory), [], `memory of ${name}`)
    t.true(known([folder]).memory(pid, notGuestMemory).length > 0, `the search reads the memory of ${name}`)
  }
  t.true(known([digest]).memory(programs.owner, notGuestMemory).length > 0, 'the host knows the image’s digest')
  t.true(
    mappingsOf(programs.pod).some(({ name }) => isGuestMemory(name)),
    'guest RAM is left out by its name',
  )
  t.true(canaries.memory(vmm, isGuestMemory).includes(`memory of qemu-system-x86_64, ${memoryName(vmm)}: plain`))
  t.deepEqual(canaries.folder(folder), [], 'while it runs')

  // What it would ask for next.
  const logs = await host.command('logs')
  t.regex(logs.output, /ERR_POLICY_DENIED/)
  const sealed = /sealed reason for the tenant: (\S+)/.exec(logs.output)?.[1] ?? ''
  t.true(sealed.startsWith(join(folder, 'state/reasons/')), logs.output)
  t.regex(caisson('explain', '--identity', `${tenantKey}.jwk`, sealed), /field: +containers\.canary\.logs\n +allowed: /)
  const exec = await host.command('exec', '--', '/workload')
  t.regex(exec.output, /ERR_POLICY_DENIED/)
  for (const [name, { output }] of Object.entries({ logs, exec })) writeFileSync(join(folder, `kept/${name}`), output)

  // A second name keeps each file of the pod with all that is still written to it.
  const pod = join(folder, 'state/pods', POD)
  const kept = readdirSync(pod, { recursive: true, encoding: 'utf8' }).filter((name) =>
    lstatSync(join(pod, name)).isFile(),
  )
  for (const name of kept) linkSync(join(pod, name), join(folder, 'kept', name.replaceAll('/', '_')))
  for (const name of ['record.json', 'initdata.img', 'scratch.img', 'console.log', 'vmm.log'])
    t.true(kept.includes(name))
  t.true(
    kept.some((name) => name.startsWith('tpm/')),
    kept.join(' '),
  )

  t.is(await host.ask('e'), 'ready 111\n')
  t.is(await host.exited, 0)
  const { packets, lost } = await loopback.stop()
  t.is(lost, 0, 'every packet of the loopback interface was recorded')

  const scratch = lstatSync(join(folder, 'kept/scratch.img'))
  t.true(scratch.blocks * 512 > 1024 * 1024, 'the workload’s layers and files are on the scratch disk, encrypted')
  t.deepEqual(canaries.folder(folder), [])
  t.deepEqual(canaries.folder(host.tpmCa), [])
  for (const path of strayFiles(before)) t.deepEqual(canaries.file(path), [], path)

  // The same search finds what the host does know.
  const capture = join(folder, 'network.pcap')
  t.deepEqual(
    known([VERIFIER_NAME, REGISTRY_NAME]).file(capture),
    [VERIFIER_NAME, REGISTRY_NAME],
    'names in TLS hellos',
  )
  t.true(lstatSync(capture).size > 500_000, 'the layers came over this device')
  const published = await host.port
  const answers = loopback.from(published).flatMap((file) => known(['ready 111']).file(file))
  t.is(answers.length, 2, 'both answers came over the published port')
  t.is(known([planted]).folder(loopback.folder).length, 1, 'what a test sends over the loopback interface is found')
  for (const name of [VERIFIER_NAME, REGISTRY_NAME])
    t.true(known([name]).folder(loopback.folder).length > 0, `QEMU’s connections to ${name} were recorded`)
  t.deepEqual(known([digest]).file(join(folder, 'kept/initdata.img')), [digest])
  t.deepEqual(known(['agent-ready']).file(join(folder, 'kept/console.log')), ['agent-ready'])
  t.log(
    `${(canaries.bytes / 1024 ** 2).toFixed(0)} MiB searched, among them ${kept.length} files of the pod; ${packets} packets on loopback`,
  )
})

test.serial('core dumps of the host’s processes hold nothing of the workload, and its VM leaves none', async (t) => {
  coreDumpsInWorkingFolder(t)
  const { tenant, image, folder } = await canaryWorkload(t, tag)
  const prefix = ['prlimit', '--core=unlimited:unlimited']
  const host = new Host(t, { folder, tpmCa: tenant.path('tpm-ca'), image, prefix })
  t.is(await host.ask('r'), 'ready 111\n')
  const pids = host.processes
  for (const program of ['caisson-pod', 'qemu-system-x86_64']) {
    const limits = readFileSync(`/proc/${only(pids, program)}/limits`, 'utf8')
    t.regex(
      limits,
      /^Max core file size +1 +1 /m,
      `${program} leaves no core, whoever started it and wherever cores go`,
    )
  }
  const canaries = new Search(formsOf(tag))
  for (const [name, pid, known] of [
    ['swtpm', only(pids, 'swtpm'), folder],
    ['caisson run', host.process.pid ?? 0, image.slice(image.indexOf('sha256:'))],
  ] as const) {
    process.kill(pid, 'SIGSEGV')
    while ((await identifyProcess(pid)) !== undefined) await setTimeout(50)
    const core = join(folder, readdirSync(folder).find((file) => file.startsWith('core')) ?? `core of ${name}`)
    t.deepEqual(new Search(new Map([['known', Buffer.from(known)]])).file(core), ['known'], `a core dump of ${name}`)
    t.deepEqual(canaries.file(core), [], name)
    rmSync(core)
  }
  while (host.processes.length > 0) await setTimeout(50)
  t.deepEqual(canaries.folder(folder), [])
  t.log(`${(canaries.bytes / 1024 ** 2).toFixed(0)} MiB searched`)
})

/** Until the test ends, whatever this machine usually does with them. */
function coreDumpsInWorkingFolder(t: ExecutionContext): void {
  const pattern = '/proc/sys/kernel/core_pattern'
  const before = readFileSync(pattern, 'utf8')
  if (!/^[|/]/.test(before)) return
  writeFileSync(pattern, 'core')
  t.teardown(() => writeFileSync(pattern, before))
}

function memoryName(pid: number): string {
  return mappingsOf(pid).find(({ name }) => isGuestMemory(name))?.name ?? 'no guest RAM'
}
