/**
 * `npm run quickstart`: the main job on real input. Plays the tenant (verifier, registry, signed image, policy, client)
 * and the host (`caisson run`) on one machine, with the real commands and servers, and prints each stage with its time.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { CaissonError, errorText } from '#protocol/errors'
import { createTpmCa } from '#vmm/swtpm'
import { buildNginxImage } from '../nginx-image/build.ts'
import { fetchWhenServed } from './client.ts'
import { Children, jsonLine } from './processes.ts'
import { startRegistry } from './registry.ts'
import { print, Stages } from './stages.ts'
import { takeStateDirectory } from './state.ts'
import { printSummary } from './summary.ts'

const REGISTRY = 'registry.quickstart.test'
const VERIFIER = 'verifier.quickstart.test'
const WEB = 'web.quickstart.test'
const WEB_PORT = 8443

async function quickstart(): Promise<void> {
  const state = await takeStateDirectory((pid) =>
    print(`Another quickstart (pid ${pid}) is running: waiting for its end`),
  )
  const tenant = `${state}/tenant`
  const path = (name: string): string => `${tenant}/${name}`
  const stages = new Stages()
  await using children = new Children()
  endOnSignal(children)
  print(`Caisson quickstart. State of this run: ${state}`)

  const services = await stages.run('Tenant: a CA for this run, the verifier, a registry', async (note) => {
    const ca = createCa({ name: 'Caisson quickstart' })
    writeFileSync(path('ca.pem'), ca.certificatePem)
    for (const [file, names] of [
      ['verifier', [VERIFIER, 'localhost']],
      ['registry', [REGISTRY, 'localhost']],
      ['web', [WEB]],
    ] as const) {
      const issued = issueServerCertificate({ ca, names, ips: ['127.0.0.1'] })
      writeFileSync(path(`${file}.pem`), issued.certificatePem)
      writeFileSync(path(`${file}.key`), issued.privateKeyPem, { mode: 0o600 })
    }
    // The maker of the software TPMs. The tenant trusts it explicitly; by default a verifier trusts no TPM.
    const tpmCa = await createTpmCa(path('tpm-ca'))
    const verifier = children.startCaisson(
      [
        'verifier',
        'serve',
        '--json',
        '--listen',
        '127.0.0.1:0',
        '--state',
        path('verifier'),
        '--tls-cert',
        path('verifier.pem'),
        '--tls-key',
        path('verifier.key'),
        '--trust-tpm-ca',
        tpmCa.rootPem,
        '--tpm-ca-intermediate',
        tpmCa.intermediatePem,
      ],
      path('verifier.log'),
    )
    const ready = await verifier.waitFor(jsonLine)
    const registry = await startRegistry(children, {
      directory: path('registry'),
      certificatePath: path('registry.pem'),
      keyPath: path('registry.key'),
    })
    const verifierPort = new URL(String(ready.url)).port
    note(`verifier   https://${VERIFIER}:${verifierPort}`)
    note(`registry   https://${REGISTRY}:${registry.port}`)
    return { verifierPort, registry: `${REGISTRY}:${registry.port}` }
  })

  const admin = [
    '--url',
    `https://localhost:${services.verifierPort}`,
    '--ca',
    path('ca.pem'),
    '--admin-key',
    path('verifier/admin.key'),
  ]
  const toRegistry = ['--ca', path('ca.pem'), '--add-host', `${REGISTRY}:127.0.0.1`]

  const image = await stages.run('Tenant: nginx from Debian packages, pushed and signed', async (note) => {
    const layout = await buildNginxImage({ onProgress: note })
    await children.caisson(['image', 'keygen', '--output', path('cosign')])
    const reference = `${services.registry}/quickstart/nginx`
    const pushed = await children.caissonJson<{ digest: string; layers: { mediaType: string; size: number }[] }>([
      'image',
      'push',
      layout,
      `${reference}:1`,
      ...toRegistry,
    ])
    await children.caisson([
      'image',
      'sign',
      '--key',
      path('cosign.key'),
      `${reference}@${pushed.digest}`,
      ...toRegistry,
    ])
    note(`image      ${reference}@${pushed.digest}`)
    for (const layer of pushed.layers) note(`layer      ${layer.mediaType}, ${layer.size} bytes`)
    return { reference: `${reference}@${pushed.digest}`, repository: reference, digest: pushed.digest }
  })

  const prediction = await stages.run(
    'Tenant: policy, predicted measurements, secrets, before anything boots',
    async (note) => {
      writeFileSync(path('policy.yaml'), policyFor(image.reference))
      writeFileSync(path('image-policy.json'), JSON.stringify(signaturePolicy(image.repository, path('cosign.pub'))))
      await children.caisson([
        'initdata',
        'create',
        '--policy',
        path('policy.yaml'),
        '--verifier-url',
        `https://${VERIFIER}:${services.verifierPort}`,
        '--verifier-ca',
        path('ca.pem'),
        '--registry-ca',
        path('ca.pem'),
        '--image-policy',
        'default/security-policy/quickstart',
        '-o',
        path('initdata.toml'),
      ])
      const measured = await children.caissonJson<{ pcrs: Record<string, string> }>([
        'measure',
        'tpm',
        '--initdata',
        path('initdata.toml'),
        '-o',
        path('reference.json'),
      ])
      await children.caisson(['verifier', 'reference-value', 'register', path('reference.json'), ...admin])
      const put = (resource: string, file: string, ...rest: string[]): Promise<string> =>
        children.caisson(['verifier', 'resource', 'put', resource, file, ...rest, ...admin])
      await put('default/security-policy/quickstart', path('image-policy.json'))
      await put('default/tls/certificate', path('web.pem'))
      await put('default/tls/key', path('web.key'), '--require-image', image.digest)
      for (const [pcr, value] of Object.entries(measured.pcrs)) note(`PCR ${pcr.padEnd(2)}     ${value}`)
      return measured
    },
  )

  const run = await stages.run('Host: caisson run; guest: boot, attest, pull, verify, start', async (note) => {
    const started = children.startCaisson(
      [
        'run',
        '--json',
        '--platform',
        'tpm',
        '--initdata',
        path('initdata.toml'),
        '--tpm-ca',
        path('tpm-ca'),
        '--state',
        `${state}/host`,
        '--publish',
        `127.0.0.1:0:${WEB_PORT}`,
        '--add-host',
        `${VERIFIER}:host-gateway`,
        '--add-host',
        `${REGISTRY}:host-gateway`,
        image.reference,
      ],
      `${state}/run.log`,
    )
    const timeline: Record<string, number> = {}
    const running = await started.waitFor((line) => {
      const event = jsonLine(line)
      if (event?.error !== undefined) throw refusal(event.error)
      if (typeof event?.stage === 'string') {
        timeline[event.stage] = Number(event.atMs)
        note(`${String(event.atMs).padStart(6)} ms  ${event.stage}`)
      }
      return event?.running === true ? event : undefined
    })
    return {
      started,
      id: String(running.id),
      port: Number((running.ports as { listen: number }[])[0]?.listen),
      timeline,
    }
  })

  await stages.run('Tenant: an HTTPS client, pinned to the released certificate', async (note) => {
    const page = await fetchWhenServed({
      port: run.port,
      name: WEB,
      caPem: readFileSync(path('ca.pem'), 'utf8'),
      certificatePem: readFileSync(path('web.pem'), 'utf8'),
    })
    note(`GET https://${WEB}/ -> ${page.status}, ${page.body.length} bytes: ${JSON.stringify(page.body.slice(0, 60))}`)
  })

  const exitCode = await stages.run('Host: ps, logs, exec, stop', async (note) => {
    const at = ['--state', `${state}/host`]
    note(`ps         ${(await children.caisson(['ps', ...at])).trim().split('\n').at(-1)}`)
    const checked = await children.finishCaisson(['exec', ...at, run.id, '--', 'nginx', '-t'])
    note(`exec       nginx -t: exit ${checked.code}, ${checked.stderr.trim().split('\n').at(-1)}`)
    note(`logs       ${(await children.caisson(['logs', ...at, run.id])).trim().split('\n').at(-1)}`)
    await children.caisson(['stop', ...at, run.id])
    const code = await run.started.exited
    note(`exit code  ${code}`)
    return code
  })

  printSummary({ stages: stages.times, timeline: run.timeline, image, pcrs: prediction.pcrs, exitCode, state })
}

/** An interrupt ends what was started, in order, before it ends us. So does the end of the bootstrap that started us. */
function endOnSignal(children: Children): void {
  let ending = false
  const end = (why: string, exitCode: number): void => {
    if (ending) return
    ending = true
    process.stderr.write(`\nquickstart: ${why}, ending what was started\n`)
    void children[Symbol.asyncDispose]().finally(() => process.exit(exitCode))
  }
  process
    .on('SIGINT', () => end('SIGINT', 130))
    .on('SIGTERM', () => end('SIGTERM', 143))
    .on('SIGHUP', () => end('SIGHUP', 129))
    .once('disconnect', () => end('the bootstrap is gone', 143))
  process.channel?.unref()
}

function refusal(error: unknown): CaissonError {
  const { code, message, remedy } = error as { code?: string; message?: string; remedy?: string }
  return new CaissonError(code ?? 'ERR_QUICKSTART_COMMAND', message ?? 'caisson run failed', { hint: remedy })
}

function policyFor(reference: string): string {
  return `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: ${reference}
    secrets:
      - { resource: default/tls/certificate, path: /run/secrets/tls.crt, mode: "0444" }
      - { resource: default/tls/key, path: /run/secrets/tls.key, mode: "0400" }
    mounts:
      - { kind: tmpfs, path: /var/cache/nginx }
    ports: [${WEB_PORT}]
    logs: allow
    exec:
      - ["nginx", "-t"]
`
}

function signaturePolicy(repository: string, publicKeyPath: string): unknown {
  const keyData = readFileSync(publicKeyPath).toString('base64')
  return {
    default: [{ type: 'reject' }],
    transports: {
      docker: { [repository]: [{ type: 'sigstoreSigned', keyData, signedIdentity: { type: 'matchRepository' } }] },
    },
  }
}

try {
  await quickstart()
} catch (error) {
  const known = error instanceof CaissonError
  process.stderr.write(`\nquickstart failed: ${known ? `${error.code}: ` : ''}${errorText(error)}\n`)
  if (known && error.hint !== undefined) process.stderr.write(`${error.hint}\n`)
  if (!known) throw error
  process.exitCode = 3
}
