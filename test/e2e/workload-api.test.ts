/** Secrets into workloads of an attested guest: the loopback endpoint as each container may use it, sealed secrets, conditions. */
import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import anyTest, { type TestFn } from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import { CAISSON_POD } from '#native/host/index'
import { StreamKind } from '#protocol/gen/agent_pb'
import { type LayerSource, writeImageLayout } from '#tools/nginx-image/layout'
import type { TarEntry } from '#tools/nginx-image/tar'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import { shellLayers } from '../component/guest/shell-image.ts'
import { attest, honestPlan, refusalOf } from './fixtures/host.ts'
import { Tenant } from './fixtures/tenant.ts'

const ONE = 'default/keys/one'
const TWO = 'default/keys/two'
const SEALING_KEY = 'default/sealing/key'
const PORT = 8006
const HEAD = `Host: 127.0.0.1:${PORT}\\r\\n\\r\\n`
/** Asks the endpoint for a path and prints the whole answer. */
const GET = `#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/${PORT}\nprintf 'GET %s HTTP/1.1\\r\\n${HEAD}' "$1" >&3\ncat <&3\n`
/** Says whether the kernel let a socket through; nobody need listen there. */
const TRY = `#!/bin/bash
( exec 3<>"/dev/$1" ) 2>/tmp/why
if [[ $(</tmp/why) == *"not permitted"* ]]; then echo "held back"; else echo "let through"; fi
`
const [GATEWAY] = USER_NETWORK.gateways
const PLACES = [`udp/${GATEWAY}/53`, 'udp/10.0.2.3/53', `tcp/127.0.0.1/${PORT}`]
/** The first is one that containerd's default profile names, the second is not. */
const PERSONALITIES = [
  '/bin/sh',
  '-c',
  '/bin/setarch linux32 /bin/true && echo named; /bin/setarch -R /bin/true && echo not named',
]
const PATHS = [
  `/cdh/resource/${ONE}`,
  `/cdh/resource/${TWO}`,
  '/aa/token?token_type=kbs',
  '/aa/evidence?runtime_data=nonce',
  '/info',
]

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A pointer to a resource, signed as the tool of Confidential Containers signs. */
function sealed(resource: string): string {
  const header = encoded({ alg: 'ES256', kid: `kbs:///${SEALING_KEY}` })
  const payload = {
    version: '0.1.0',
    type: 'vault',
    provider: 'kbs',
    name: `kbs:///${resource}`,
    provider_settings: {},
    annotations: {},
  }
  const input = `${header}.${encoded(payload)}`
  const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `sealed.${input}.${signature.toString('base64url')}`
}

interface Context {
  tenant: Tenant
  pod: Pod
  image: string
  /** Where containers try to connect to, as bash names it. */
  places: readonly string[]
}

const test = anyTest as TestFn<Context>

/** bash, which can open TCP connections, and the program above. */
function bashLayer(): LayerSource {
  const bash = realpathSync('/bin/bash')
  const libraries = [...execFileSync('ldd', [bash], { encoding: 'utf8' }).matchAll(/\/lib[^ ]+/g)].map(([path]) => path)
  const file = (path: string, content: Uint8Array): TarEntry => ({ path, type: 'file', mode: 0o755, content })
  return {
    compression: 'gzip',
    entries: [
      ...['bin', 'lib64', 'lib', 'lib/x86_64-linux-gnu'].map(
        (path): TarEntry => ({ path, type: 'directory', mode: 0o755 }),
      ),
      file('bin/bash', readFileSync(bash)),
      file('bin/get', new TextEncoder().encode(GET)),
      file('bin/try', new TextEncoder().encode(TRY)),
      ...libraries.map((library) => file(library.slice(1), readFileSync(realpathSync(library)))),
    ],
  }
}

function policy(image: string, places: readonly string[]): string {
  const exec = `exec: ${JSON.stringify([...PATHS.map((path) => ['/bin/get', path]), ['/bin/env'], ['/bin/cat', '/run/sealed']])}`
  const rule = (name: string, more: readonly string[]): string =>
    [`- name: ${name}`, ...[`image: ${image}`, ...more].map((line) => `  ${line}`)]
      .map((line) => `  ${line}\n`)
      .join('')
  return `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${[
    rule('one', [exec, `api: { resources: [${ONE}], token: true }`]),
    rule('two', [
      `${exec.slice(0, -1)},${JSON.stringify(['/bin/try', places[1]])}]`,
      `api: { resources: [${TWO}], evidence: true }`,
      `ports: [${PORT}]`,
    ]),
    rule('none', [
      `${exec.slice(0, -1)},${JSON.stringify(PERSONALITIES)}]`,
      'seccomp: runtime-default',
      `env: { PASSWORD: { sealed: ${SEALING_KEY} }, MODE: { glob: "*" } }`,
      `secrets: [{ sealed: "${sealed(TWO)}", key: ${SEALING_KEY}, path: /run/sealed }]`,
      `conditions: [{ name: mode, require: 'request.env.MODE in ["a", "b"]', remedy: Set MODE to a or b. }]`,
    ]),
    rule('confined', [
      `exec: ${JSON.stringify(places.map((place) => ['/bin/try', place]))}`,
      `egress: [{ to: ${GATEWAY}, ports: [${places[0]?.split('/').at(-1)}, 53] }]`,
    ]),
  ].join('')}`
}

test.before(async (t) => {
  const tenant = await Tenant.start()
  t.context.tenant = tenant
  const layout = tenant.path('layout-shell')
  writeImageLayout(layout, { layers: [...shellLayers(), bashLayer()], config: { Cmd: ['/bin/sleep', '100000'] } })
  const image = await tenant.push(layout, 'shell', tenant.signingKey.privatePem)
  t.context.image = image
  const [verifier, registry] = [new URL(tenant.verifier.url).port, tenant.registryHost.split(':').at(-1)]
  const places = [
    `tcp/${GATEWAY}/${verifier}`,
    `tcp/${GATEWAY}/${registry}`,
    ...PLACES,
    `tcp/::ffff:${GATEWAY}/${registry}`,
  ]
  t.context.places = places
  const initdata = tenant.initdata(policy(image, places))
  await tenant.expect(initdata)
  await tenant.admin.putResource(ONE, Buffer.from('content one'))
  await tenant.admin.putResource(TWO, Buffer.from('content two'))
  const jwk = createPublicKey(publicKey.export({ type: 'spki', format: 'pem' })).export({ format: 'jwk' })
  await tenant.admin.putResource(SEALING_KEY, Buffer.from(JSON.stringify(jwk)))
  t.context.pod = await startPod(honestPlan(tenant, initdata), {
    stateRoot: tenant.path('host'),
    podProgram: CAISSON_POD,
  })
  await attest(t.context.pod)
  for (const name of ['one', 'two', 'confined']) {
    await t.context.pod.agent.createContainer({ containerId: name, name, image })
    await t.context.pod.agent.startContainer(name)
  }
})

test.after.always(async (t) => {
  await t.context.pod?.stop({ graceMs: 0 })
  await t.context.tenant?.[Symbol.asyncDispose]()
})

let execs = 0

async function run(pod: Pod, containerId: string, ...args: string[]): Promise<string> {
  const execId = `e${++execs}`
  await pod.agent.exec({ containerId, execId, args })
  return text(await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId, execId }))
}

/** Status and body. */
async function get(pod: Pod, containerId: string, path: string): Promise<readonly [status: number, body: string]> {
  const answer = await run(pod, containerId, '/bin/get', path)
  return [Number(answer.split(' ')[1]), answer.slice(answer.indexOf('\r\n\r\n') + 4)]
}

test.serial(
  'each container gets the resources that its rule names, and another one in the same guest does not',
  async (t) => {
    const { pod } = t.context
    t.deepEqual(await get(pod, 'one', `/cdh/resource/${ONE}`), [200, 'content one'])
    t.deepEqual(await get(pod, 'two', `/cdh/resource/${TWO}`), [200, 'content two'])
    for (const [name, resource] of [
      ['one', TWO],
      ['two', ONE],
    ] as const) {
      const [status, body] = await get(pod, name, `/cdh/resource/${resource}`)
      t.is(status, 403)
      t.like(JSON.parse(body), { code: 'ERR_POLICY_DENIED' })
    }
  },
)

test.serial('token and evidence go to the containers that may have them, and the guest’s key to none', async (t) => {
  const { pod } = t.context
  const [status, token] = await get(pod, 'one', '/aa/token?token_type=kbs')
  t.is(status, 200)
  t.deepEqual(Object.keys(JSON.parse(token)), ['token'])
  t.is((await get(pod, 'two', '/aa/token?token_type=kbs'))[0], 403)
  const [evidenceStatus, evidence] = await get(pod, 'two', '/aa/evidence?runtime_data=nonce')
  t.is(evidenceStatus, 200, evidence)
  const { report_data: data } = JSON.parse(evidence) as { report_data: string }
  t.is(Buffer.from(data, 'base64').toString().replaceAll('\0', ''), 'nonce')
  t.is((await get(pod, 'one', '/aa/evidence?runtime_data=nonce'))[0], 403)
  t.is((await get(pod, 'one', '/info'))[1], '{"additional_tees":[],"tee":"tpm"}')
})

test.serial('a host that reaches the endpoint’s port is nobody’s container', async (t) => {
  const { pod, tenant } = t.context
  const before = await tenant.releases()
  const stream = await openGuestStream(pod, { kind: StreamKind.PORT, port: PORT })
  stream.write(`GET /cdh/resource/${TWO} HTTP/1.1\r\nHost: 127.0.0.1:${PORT}\r\n\r\n`)
  const answer = await text(stream)
  t.regex(answer, /^HTTP\/1\.1 403 /)
  t.regex(answer, /ERR_API_CALLER/)
  t.deepEqual(await tenant.releases(), before)
})

test.serial(
  'a sealed secret of the host is unsealed in the guest, and one that was changed starts nothing',
  async (t) => {
    const { pod, image } = t.context
    const secret = sealed(ONE)
    const create = (env: string[]) => pod.agent.createContainer({ containerId: 'none', name: 'none', image, env })
    const changed = `${secret.slice(0, -2)}${secret.at(-2) === 'A' ? 'B' : 'A'}${secret.at(-1)}`
    t.is((await refusalOf(create([`PASSWORD=${changed}`, 'MODE=a']))).code, 'ERR_SEALED_SECRET_SIGNATURE')
    t.is((await refusalOf(create(['PASSWORD=plain', 'MODE=a']))).code, 'ERR_POLICY_DENIED')
    t.is(
      (await refusalOf(create([`PASSWORD=${secret}`, 'MODE=c']))).code,
      'ERR_POLICY_DENIED',
      'a condition does not hold',
    )
    await create([`PASSWORD=${secret}`, 'MODE=a'])
    await pod.agent.startContainer('none')
    t.regex(await run(pod, 'none', '/bin/env'), /^PASSWORD=content one$/m)
    t.is(await run(pod, 'none', '/bin/cat', '/run/sealed'), 'content two')
  },
)

test.serial('the guest’s kernel holds a container to runtime-default, personalities included', async (t) => {
  t.is(await run(t.context.pod, 'none', ...PERSONALITIES), 'named\n')
})

test.serial('a container without access reaches nothing of the endpoint', async (t) => {
  for (const path of PATHS) t.is((await get(t.context.pod, 'none', path))[0], 403, path)
})

test.serial(
  'a container connects to whom its egress names, and to nobody else; others are not held to it',
  async (t) => {
    const { pod, places } = t.context
    const verdicts: Record<string, string> = {}
    for (const place of places) verdicts[place] = (await run(pod, 'confined', '/bin/try', place)).trim()
    const [verifier = '', registry = '', dns = '', otherDns = '', loopback = '', mapped = ''] = places
    t.deepEqual(verdicts, {
      [verifier]: 'let through',
      [registry]: 'held back',
      [dns]: 'let through',
      [otherDns]: 'held back',
      [loopback]: 'let through',
      [mapped]: 'held back',
    })
    t.is((await run(pod, 'two', '/bin/try', registry)).trim(), 'let through')
  },
)
