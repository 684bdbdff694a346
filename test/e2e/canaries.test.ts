/**
 * Random canaries in everything that a workload keeps to itself, then a search through everything that its host had.
 *
 * The host is a process of its own, `caisson run`, with what it starts; it has one folder, and its temporary files go
 * there. Tenant (verifier, in this process) and registry are not the host. Two things are left out, as THREAT_MODEL.md
 * says: QEMU's memory, and mappings of guest RAM in other processes. On this platform the host can read guest memory;
 * the test shows that, too, because it proves that the canaries were there and that the search finds them.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { formsOf, isGuestMemory, mappingsOf, processesOf, programOf, Search } from './fixtures/search.ts'
import { REGISTRY_NAME, Tenant, VCPUS, VERIFIER_NAME } from './fixtures/tenant.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const QEMU = '/usr/bin/qemu-system-x86_64'
const SECRET = 'default/canary/secret'
const POD = 'canary'
const PORT = 9000

/** Part of each canary of this run: whoever finds one finds this. Letters and digits, so that no encoding escapes them. */
const tag = `Canary${randomBytes(12).toString('hex')}`

/** The image: canaries in a layer that is not even compressed, and in its configuration. Answers with the reference. */
async function pushWorkload(tenant: Tenant): Promise<string> {
  const program = tenant.path('workload')
  const masked = (name: string): string => [...Buffer.from(`${tag}${name}`)].map((byte) => byte ^ 0x5a).join(',')
  const defines = ['memory', 'file', 'output'].map((name) => `-DCANARY_${name.toUpperCase()}=${masked(name)}`)
  const source = join(ROOT, 'test/e2e/fixtures/canary-workload.c')
  execFileSync('gcc', ['-static', '-O2', '-s', '-Wall', '-Werror', ...defines, '-o', program, source])
  const layout = tenant.path('layout-canary')
  writeImageLayout(layout, {
    layers: [
      {
        compression: 'none',
        entries: [
          { path: 'data', type: 'directory', mode: 0o755 },
          { path: 'data/layer', type: 'file', mode: 0o644, content: Buffer.from(`${tag}layer\n`.repeat(1000)) },
        ],
      },
      {
        compression: 'none',
        entries: [
          { path: 'run', type: 'directory', mode: 0o755 },
          { path: 'workload', type: 'file', mode: 0o755, content: readFileSync(program) },
        ],
      },
    ],
    config: {
      Cmd: ['/workload'],
      Env: [`CANARY_CONFIG=${tag}environment`],
      Labels: { 'test.canary': `${tag}label` },
    },
  })
  return tenant.push(layout, 'canary', tenant.signingKey.privatePem)
}

/** The host's folder, with QEMU wrapped so that it records what its network device carries. */
function hostFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-host-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const name of ['bin', 'tmp', 'state', 'kept']) mkdirSync(join(folder, name))
  const wrapper = join(folder, 'bin/qemu-system-x86_64')
  const filter = `filter-dump,id=capture,netdev=net,maxlen=65536,file=${folder}/network.pcap`
  writeFileSync(wrapper, `#!/bin/sh\nexec ${QEMU} "$@" -object ${filter}\n`)
  chmodSync(wrapper, 0o755)
  return folder
}

class Host {
  readonly folder: string
  readonly tpmCa: string
  readonly process: ChildProcess
  readonly exited: Promise<number>
  /** Port on this machine that reaches the workload. */
  readonly port: Promise<number>

  constructor(t: ExecutionContext, options: { folder: string; tpmCa: string; image: string }) {
    const { folder, tpmCa, image } = options
    this.folder = folder
    this.tpmCa = tpmCa
    const hosts = [VERIFIER_NAME, REGISTRY_NAME].flatMap((name) => ['--add-host', `${name}:host-gateway`])
    this.process = this.#caisson([
      ...['run', '--json', '--accel', 'tcg', '--cpus', String(VCPUS), '--scratch', '256', '--name', POD],
      ...['--initdata', join(folder, 'initdata.toml'), '--state', join(folder, 'state'), '--tpm-ca', tpmCa, ...hosts],
      ...['--publish', `127.0.0.1:0:${PORT}`, image],
    ])
    const { stdout, stderr } = this.process
    if (stdout === null || stderr === null) throw new Error('no pipes')
    const output = text(stdout)
    this.exited = once(this.process, 'exit').then(async ([code]) => {
      writeFileSync(join(folder, 'stdout'), await output)
      return Number(code)
    })
    t.teardown(async () => {
      // The first one asks the workload, which does not care; the next ones end the VM.
      const again = setInterval(() => this.process.kill('SIGTERM'), 1000)
      await this.exited
      clearInterval(again)
    })
    const errors: string[] = []
    const lines = createInterface({ input: stderr })
    this.port = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        errors.push(line)
        writeFileSync(join(folder, 'stderr'), errors.join('\n'))
        const port = /"running":true.*"listen":(\d+)/.exec(line)?.[1]
        if (port !== undefined) resolve(Number(port))
      })
      void this.exited.then((code) =>
        reject(new Error(`caisson run ended with ${code}: ${errors.slice(-4).join('\n')}`)),
      )
    })
    this.port.catch(() => undefined)
  }

  /** A command of the operator's on the running pod. */
  async command(name: string, ...words: string[]): Promise<{ code: number; output: string }> {
    const child = this.#caisson([name, '--state', join(this.folder, 'state'), POD, ...words])
    if (child.stdout === null || child.stderr === null) throw new Error('no pipes')
    const output = Promise.all([text(child.stdout), text(child.stderr)])
    const [code] = await once(child, 'exit')
    return { code: Number(code), output: (await output).join('') }
  }

  /** Sends one letter to the workload; answers with what comes back. */
  async ask(word: string): Promise<string> {
    const socket = connect({ host: '127.0.0.1', port: await this.port })
    socket.write(word)
    return text(socket)
  }

  get processes(): readonly number[] {
    return processesOf(this.process.pid ?? 0, this.folder)
  }

  #caisson(words: readonly string[]): ChildProcess {
    const env = { ...process.env, TMPDIR: join(this.folder, 'tmp'), PATH: `${this.folder}/bin:${process.env.PATH}` }
    const argv = [join(ROOT, 'cli/main.ts'), ...words]
    return spawn(process.execPath, argv, { cwd: this.folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
  }
}

/** The tenant's commands. */
function caisson(...words: string[]): string {
  return execFileSync(process.execPath, [join(ROOT, 'cli/main.ts'), ...words], { encoding: 'utf8' })
}

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

test('nothing that a workload keeps to itself is anywhere on its host', async (t) => {
  const before = new Set(temporaryEntries())
  const tenant = await Tenant.start()
  t.teardown(() => tenant[Symbol.asyncDispose]())
  const image = await pushWorkload(tenant)
  const digest = image.slice(image.indexOf('sha256:'))
  const folder = hostFolder(t)
  const tenantKey = tenant.path('reasons')
  caisson('initdata', 'keygen', '--output', tenantKey)
  const initdata = tenant.initdata(
    `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: canary
    image: ${image}
    secrets: [{ resource: ${SECRET}, path: /run/secrets/canary, mode: "0400" }]
    ports: [${PORT}]
`,
    readFileSync(`${tenantKey}.pub.jwk`, 'utf8').trim(),
  )
  writeFileSync(join(folder, 'initdata.toml'), initdata)
  await tenant.expect(initdata)
  await tenant.admin.putResource(SECRET, Buffer.from(`${tag}secret`))

  const canaries = new Search(formsOf(tag))
  t.deepEqual(canaries.file(tenant.path('workload')), [], 'the workload’s own canaries are masked in its program')
  t.true(canaries.folder(tenant.path('registry-data')).length >= 2, 'the registry has layer and configuration in plain')

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
  t.deepEqual(known([digest]).file(join(folder, 'kept/initdata.img')), [digest])
  t.deepEqual(known(['agent-ready']).file(join(folder, 'kept/console.log')), ['agent-ready'])
  t.log(`${(canaries.bytes / 1024 ** 2).toFixed(0)} MiB searched, among them ${kept.length} files of the pod`)
})

function memoryName(pid: number): string {
  return mappingsOf(pid).find(({ name }) => isGuestMemory(name))?.name ?? 'no guest RAM'
}
