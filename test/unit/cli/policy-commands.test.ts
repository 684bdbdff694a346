/** The tools of a policy's author, in this process: what they print, as text and as JSON, and their exit codes. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { parseInvocation } from '#cli/command'
import { COMMANDS } from '#cli/commands'
import { exitCodeOf } from '#cli/exit-code'
import { Output } from '#cli/output'
import { generateSigningKey } from '#image/node/sign'
import { parseWorkloadPolicy } from '#policies/workload'

const DIGEST = `sha256:${'a'.repeat(64)}`
const POLICY = `# our shop
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test/web@${DIGEST}
    env: { MODE: production }
    logs: allow
`
const CASES = `apiVersion: caisson/v1
kind: PolicyTest
steps:
  - create: { name: web, image: registry.test/web, env: { MODE: test } }
`

class Captured extends Output {
  stdout = ''
  said = ''

  override write(text: string | Uint8Array): void {
    this.stdout += typeof text === 'string' ? text : Buffer.from(text).toString('utf8')
  }

  override progress(text: string): void {
    this.said += `${text}\n`
  }
}

interface Files {
  readonly path: (name: string) => string
  /** Exit code, what is printed, and what is said on the way. */
  readonly run: (command: string, ...words: string[]) => Promise<[number, string, string]>
}

function files(t: ExecutionContext, contents: Readonly<Record<string, string>>): Files {
  const folder = mkdtempSync(join(tmpdir(), 'policy-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries(contents)) writeFileSync(join(folder, name), text)
  return {
    path: (name) => join(folder, name),
    run: async (command, ...words) => {
      const spec = await COMMANDS[command]?.load()
      if (spec === undefined) throw new Error(`there is no ${command}`)
      const out = new Captured(words.includes('--json'))
      const named = words
        .filter((word) => word !== '--json')
        .map((word) => (word in contents ? join(folder, word) : word))
      try {
        return [await spec.run(parseInvocation(spec, named, out)), out.stdout, out.said]
      } catch (error) {
        return [exitCodeOf(error), out.stdout, out.said]
      }
    },
  }
}

test('check, test, explain, diff and flatten end with 0, with 1 for a verdict, with 2 for what they cannot read', async (t) => {
  const contents = {
    'p.yaml': POLICY,
    'q.yaml': POLICY.replace('production', 'test'),
    'c.yaml': CASES,
    'bad.yaml': 'x',
  }
  const { run } = files(t, contents)
  const code = async (command: string, ...words: string[]) => (await run(command, ...words))[0]
  t.is(await code('policy check', 'p.yaml'), 0)
  t.is(await code('policy check', 'p.yaml', '--strict'), 1)
  t.is(await code('policy test', 'q.yaml', 'c.yaml'), 0)
  t.is(await code('policy test', 'p.yaml', 'c.yaml'), 1)
  t.is(await code('policy explain', 'q.yaml', 'c.yaml'), 0)
  t.is(await code('policy explain', 'p.yaml', 'c.yaml'), 1)
  t.is(await code('policy diff', 'p.yaml', 'p.yaml'), 0)
  t.is(await code('policy diff', 'p.yaml', 'q.yaml'), 1)
  t.is(await code('policy flatten', 'p.yaml'), 0)
  for (const [command, ...more] of [
    ['policy check'],
    ['policy test', 'c.yaml'],
    ['policy explain', 'c.yaml'],
    ['policy diff', 'p.yaml'],
    ['policy flatten'],
  ] as const) {
    t.is(await code(command, 'bad.yaml', ...more), 2, command)
  }
})

test('with --json each of them prints one JSON value', async (t) => {
  const { run } = files(t, { 'p.yaml': POLICY, 'q.yaml': POLICY.replace('production', 'test'), 'c.yaml': CASES })
  const json = async (command: string, ...words: string[]) => JSON.parse((await run(command, ...words, '--json'))[1])
  t.is((await json('policy check', 'p.yaml')).warnings[0].path, 'containers.web.logs')
  t.like(await json('policy test', 'p.yaml', 'c.yaml'), { passed: 0, failed: 1 })
  const explained = await json('policy explain', 'p.yaml', 'c.yaml')
  t.deepEqual(explained.denials, [{ field: 'containers.web.env.MODE', allowed: 'production', asked: 'test' }])
  t.deepEqual(explained.changes, ['containers.web.env.MODE: "production" → ["production","test"]'])
  t.deepEqual(await json('policy diff', 'p.yaml', 'q.yaml'), {
    allowed: ['containers.web.env.MODE: test'],
    denied: ['containers.web.env.MODE: production'],
  })
  t.is((await json('policy flatten', 'p.yaml')).policy, POLICY)
})

test('what explain writes is admitted, keeps comments, and allows what diff lists', async (t) => {
  const { run, path } = files(t, { 'p.yaml': POLICY, 'c.yaml': CASES, 'new.yaml': '' })
  await run('policy explain', 'p.yaml', 'c.yaml', '--write', 'new.yaml')
  t.true(readFileSync(path('new.yaml'), 'utf8').startsWith('# our shop\n'))
  t.is((await run('policy test', 'new.yaml', 'c.yaml'))[0], 0)
  const [, printed] = await run('policy diff', 'p.yaml', 'new.yaml')
  t.is(printed, '+ containers.web.env.MODE: test\n')
})

test.serial('what is allowed and denied has colours where colours are wanted, and none elsewhere', async (t) => {
  const { run } = files(t, { 'p.yaml': POLICY, 'q.yaml': POLICY.replace('production', 'test') })
  const [, plain] = await run('policy diff', 'p.yaml', 'q.yaml')
  t.is(plain, stripVTControlCharacters(plain))
  process.env.FORCE_COLOR = '1'
  t.teardown(() => delete process.env.FORCE_COLOR)
  const [, coloured] = await run('policy diff', 'p.yaml', 'q.yaml')
  t.not(coloured, plain)
  t.is(stripVTControlCharacters(coloured), plain)
  const [, json] = await run('policy diff', 'p.yaml', 'q.yaml', '--json')
  t.is(json, stripVTControlCharacters(json))
})

test('a public key goes into a generated policy, and nothing else that a file may hold', async (t) => {
  const [signer, other] = [generateSigningKey(), generateSigningKey()]
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'shop' },
    spec: { containers: [{ name: 'web', image: 'registry.test/web:1' }] },
  }
  const { run } = files(t, {
    'pod.yaml': JSON.stringify(pod),
    'public.pem': signer.publicPem,
    // As other systems write it.
    'lines.pem': `\n${signer.publicPem.replaceAll('\n', '\r\n')}\n`,
    'private.pem': signer.privatePem,
    'both.pem': signer.privatePem + signer.publicPem,
    'two.pem': signer.publicPem + other.publicPem,
    'note.pem': `of the shop\n${signer.privatePem}`,
    'text.pem': 'no key',
    'empty.pem': '',
  })
  const generate = (file: string) => run('policy generate', '-f', 'pod.yaml', '--offline', '--signed-by', file)
  for (const file of ['public.pem', 'lines.pem']) {
    const [code, yaml] = await generate(file)
    t.is(code, 0, file)
    t.deepEqual(parseWorkloadPolicy(yaml).containers[0]?.signedBy, [{ kind: 'key-data', pem: signer.publicPem }], file)
  }
  for (const file of ['private.pem', 'both.pem', 'two.pem', 'note.pem', 'text.pem', 'empty.pem']) {
    t.deepEqual((await generate(file)).slice(0, 2), [2, ''], file)
  }
})

const podNamed = (name: string, image: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [{ name: 'web', image, command: ['/web'] }],
    },
  })

test('the YAML with initdata is written for a policy that is ready; for another it is said that it was not, and why', async (t) => {
  const ready = podNamed('shop', `registry.test/web@${DIGEST}`)
  const { run, path } = files(t, { 'ready.yaml': ready, 'open.yaml': podNamed('shop', 'registry.test/web:1') })
  const generate = (file: string) =>
    run('policy generate', '-f', file, '--offline', '--inject', path(`with-initdata-${file}`))
  const [code, , said] = await generate('ready.yaml')
  t.is(code, 0, said)
  t.true(readFileSync(path('with-initdata-ready.yaml'), 'utf8').includes('initdata'))
  const [refused, , why] = await generate('open.yaml')
  t.is(refused, 1)
  t.regex(why, /with-initdata-open\.yaml is not written: 1 choice is open/)
  t.false(existsSync(path('with-initdata-open.yaml')))
})

test('options of `policy generate` that do not go together are refused before anything is asked or written', async (t) => {
  const image = `registry.test/web@${DIGEST}`
  const { run, path } = files(t, {
    'two.yaml': `${podNamed('shop', image)}\n---\n${podNamed('bank', image)}`,
    'one.yaml': podNamed('shop', image),
  })
  const folder = path('policies')
  for (const words of [
    ['-f', 'two.yaml', '--output-dir', folder, '--inject', path('injected.yaml')],
    ['-f', 'one.yaml', '--output-dir', folder, '-o', path('policy.yaml')],
    ['-f', 'one.yaml', '--output-dir', folder, '--inject', path('injected.yaml'), '--verifier-url', 'https://v.test'],
  ]) {
    const [code, printed, said] = await run('policy generate', '--offline', ...words)
    t.deepEqual([code, printed, said], [2, '', ''], words.join(' '))
    for (const written of [folder, path('injected.yaml'), path('policy.yaml')]) t.false(existsSync(written), written)
  }
})
