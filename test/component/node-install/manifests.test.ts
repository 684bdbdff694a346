/** The manifests under deploy/ against Kubernetes' own description of its objects, and against what they start. */
import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { valueAt } from '#host-shim/install/toml-edit'
import { DEPLOY, type Manifest, plainManifests } from '../../unit/node-install/chart.ts'
import { containerdFolder } from './containerds.ts'
import { KubernetesSchema } from './kubernetes-schema.ts'

const ROOT = join(DEPLOY, '..')

test('every manifest is an object that Kubernetes knows, with all that it must have and nothing that it does not know', async (t) => {
  const schema = await KubernetesSchema.open()
  let count = 0
  for (const [name, manifests] of plainManifests()) {
    for (const manifest of manifests) {
      t.deepEqual(schema.problems(manifest), [], name)
      count++
    }
  }
  t.true(count >= 10)
  // The description itself says no.
  const [good] = plainManifests().get('runtimeclass') ?? []
  const { handler: _handler, ...without } = good ?? {}
  t.deepEqual(schema.problems(without), ['RuntimeClass.handler is missing'])
  t.deepEqual(schema.problems({ ...good, overhead: { podFixed: { memory: true }, x: 1 } }), [
    'RuntimeClass.overhead.podFixed.memory is no str',
    'RuntimeClass.overhead.x does not exist',
  ])
})

test('the verifier starts with the arguments of its manifest, and answers the probes', async (t) => {
  const deployment = plainManifests()
    .get('verifier-sqlite')
    ?.find(({ kind }) => kind === 'Deployment')
  const [container] = valueAt(deployment, ['spec', 'template', 'spec', 'containers']) as readonly Manifest[]
  const folder = temporary(t)
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '1',
      '-subj',
      '/CN=localhost',
      '-keyout',
      join(folder, 'tls.key'),
      '-out',
      join(folder, 'tls.crt'),
    ],
    { stdio: 'pipe' },
  )
  const args = (valueAt(container, ['args']) as readonly string[]).map((word) =>
    word
      .replace('/var/lib/caisson-verifier', join(folder, 'state'))
      .replace('/etc/caisson/tls/', `${folder}/`)
      .replace('0.0.0.0:8443', '127.0.0.1:0'),
  )
  const [script] = valueAt(container, ['command']) as readonly string[]
  const child = spawn(join(ROOT, (script ?? '').replace('/opt/caisson-image/', '')), [...args, '--json'], {
    env: { PATH: process.env.PATH, CAISSON_SOURCE: ROOT, XDG_CACHE_HOME: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const line = await firstLine(child.stdout)
  const { url } = JSON.parse(line) as { url: string }
  for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
    const path = String(valueAt(container, [probe, 'httpGet', 'path']))
    t.is(await statusOf(`${url}${path}`), 200, probe)
  }
})

test('the installer’s container puts its release on the node, installs it, and reports what the node lacks', async (t) => {
  const folder = temporary(t)
  const [source, target, root] = ['image', 'target', 'root'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  // The image, with links to this tree in place of copies.
  mkdirSync(source)
  for (const name of ['node_modules', 'cli']) symlinkSync(join(ROOT, name), join(source, name))
  cpSync(join(DEPLOY, 'image'), join(source, 'deploy/image'), { recursive: true })
  writeFileSync(join(source, 'RELEASE'), 'r1\n')
  const containerd = join(await containerdFolder('1.6'), 'containerd')
  const env = { PATH: process.env.PATH, CAISSON_SOURCE: source, CAISSON_TARGET: target, CAISSON_ON_NODE: 'env' }
  const words = ['--root', root, '--containerd-program', containerd, '--platform', 'none', '--accel', 'tcg']
  const script = (name: string): string => join(source, 'deploy/image', name)
  for (const time of ['first', 'second']) {
    const child = spawn(script('node-install.sh'), words, { env, stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(() => child.kill('SIGKILL'))
    let output = ''
    for await (const chunk of child.stdout.setEncoding('utf8')) {
      output += String(chunk)
      if (/^installed$/m.test(output)) break
    }
    child.kill('SIGKILL')
    t.regex(output, time === 'first' ? /wrote / : /nothing to change/)
  }
  t.deepEqual(readdirSync(join(target, 'releases')), ['r1'])
  const launcher = join(root, target, 'bin/caisson')
  t.true(existsSync(launcher))
  const launched = execFileSync(launcher, ['node', 'check', '--help'], { encoding: 'utf8' })
  t.regex(launched, /caisson node check/)
  const check = spawn(script('node-check.sh'), ['--root', root, '--platform', 'none'], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = await text(check.stdout)
  t.regex(lines, /ok +installation/)
  t.regex(lines, /missing +node-daemon/)
})

test('the scripts of the image are shell', (t) => {
  for (const name of readdirSync(join(DEPLOY, 'image')).filter((each) => each.endsWith('.sh'))) {
    t.notThrows(() => execFileSync('sh', ['-n', join(DEPLOY, 'image', name)], { stdio: 'pipe' }), name)
  }
})

function temporary(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'cm-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

async function firstLine(stream: NodeJS.ReadableStream): Promise<string> {
  let seen = ''
  for await (const chunk of stream) {
    seen += String(chunk)
    if (seen.includes('\n')) break
  }
  return seen.split('\n')[0] ?? ''
}

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  let seen = ''
  for await (const chunk of stream) seen += String(chunk)
  return seen
}

/** As a kubelet probes: whoever the certificate names. */
function statusOf(url: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(url, { rejectUnauthorized: false }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
      .on('error', reject)
      .end()
  })
}
