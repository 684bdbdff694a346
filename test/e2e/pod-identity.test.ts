/**
 * Two attested pods over mutual TLS, each with the certificate that the verifier issued for the key that its guest made:
 * nginx in the one asks nginx in the other. What the host may carry is TLS between the two, and it can join in with nothing.
 */
import { X509Certificate } from 'node:crypto'
import { request as plainRequest } from 'node:http'
import type { RequestOptions } from 'node:https'
import { request as tlsRequest } from 'node:https'
import test from 'ava'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { forwardPort, type PortForward } from '#host-shim/pod/guest-streams'
import type { Pod } from '#host-shim/pod/pod'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import { attest, boot, honestPlan } from './fixtures/host.ts'
import { Tenant } from './fixtures/tenant.ts'

const [WEB, DB] = ['web.shop.example', 'db.shop.example']
const PORT = 8443
const OUTSIDE = USER_NETWORK.gateways[0]
/** Until nginx listens in a guest whose processor is emulated. */
const PATIENCE_MS = 120_000

const nginx = (server: string): string => `
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
    access_log /dev/stdout;
    client_body_temp_path /var/cache/nginx/client;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    server {
${server}
    }
}
`

const DATABASE = nginx(`
        listen ${PORT} ssl;
        ssl_certificate /run/identity/cert.pem;
        ssl_certificate_key /run/identity/key.pem;
        ssl_client_certificate /run/identity/ca.pem;
        ssl_verify_client on;
        location / { default_type text/plain; return 200 $ssl_client_escaped_cert; }`)

/** Asks for the database by its own name, and at /other by a name that the database does not have. */
const web = (database: PortForward): string => {
  const ask = (name: string): string => `
            proxy_pass https://${OUTSIDE}:${database.port}/;
            proxy_ssl_certificate /run/identity/cert.pem;
            proxy_ssl_certificate_key /run/identity/key.pem;
            proxy_ssl_trusted_certificate /run/identity/ca.pem;
            proxy_ssl_verify on;
            proxy_ssl_name ${name};`
  return nginx(`
        listen ${PORT};
        location / {${ask(DB)}
        }
        location /other {${ask('other.shop.example')}
        }`)
}

interface Reply {
  readonly status: number
  readonly body: string
}

function ask(secure: boolean, options: RequestOptions): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = (secure ? tlsRequest : plainRequest)(
      { host: '127.0.0.1', agent: false, ...options },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body })).on('error', reject)
      },
    )
    request.on('error', reject).end()
  })
}

/** The answer of a server that may not listen yet. */
async function answered(secure: boolean, options: RequestOptions): Promise<Reply> {
  for (const deadline = Date.now() + PATIENCE_MS; ; ) {
    try {
      return await ask(secure, options)
    } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
}

test('two attested pods know each other by the names that their verifier certified, and nobody else passes for one', async (t) => {
  const tenant = await Tenant.start()
  t.teardown(() => tenant[Symbol.asyncDispose]())
  const image = await tenant.pushNginx('nginx')
  const container = (name: string, dnsName: string): string => `
  - name: ${name}
    image: ${image}
    args: ["nginx", "-c", "/run/config/nginx.conf", "-g", "daemon off;"]
    secrets:
      - { resource: default/config/${name}, path: /run/config/nginx.conf }
    identity: { path: /run/identity, names: [${dnsName}] }
    mounts:
      - { kind: tmpfs, path: /var/cache/nginx }
    ports: [${PORT}]
    logs: allow`
  const initdata = tenant.initdata(
    `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:${container('db', DB)}${container('web', WEB)}\n`,
  )
  await tenant.expect(initdata)
  await tenant.admin.putIdentity('db', [DB])
  await tenant.admin.putIdentity('web', [WEB])
  await tenant.admin.putResource('default/config/db', Buffer.from(DATABASE))
  const [dbPod, webPod] = await Promise.all([
    boot(t, tenant, honestPlan(tenant, initdata)),
    boot(t, tenant, honestPlan(tenant, initdata)),
  ])
  const forwarded = async (pod: Pod): Promise<PortForward> => {
    const forward = await forwardPort(pod, { listen: '127.0.0.1:0', port: PORT })
    t.teardown(() => forward[Symbol.asyncDispose]())
    return forward
  }
  const database = await forwarded(dbPod)
  await tenant.admin.putResource('default/config/web', Buffer.from(web(database)))
  const run = async (pod: Pod, name: string): Promise<void> => {
    await attest(pod)
    await pod.agent.createContainer({ containerId: name, name, image })
    await pod.agent.startContainer(name)
  }
  await Promise.all([run(dbPod, 'db'), run(webPod, 'web')])

  // A stranger: TLS works, for whoever believes the tenant's CA, but there is nothing without a certificate of it.
  const ca = (await answered(true, { ...caRequest(tenant), ca: tenant.ca.certificatePem })).body
  const asDatabase = { port: database.port, ca, servername: DB }
  t.is((await answered(true, asDatabase)).status, 400)
  const foreign = issueServerCertificate({ ca: createCa(), names: [WEB] })
  const impostor = { ...asDatabase, cert: foreign.certificatePem, key: foreign.privateKeyPem }
  t.is((await ask(true, impostor)).status, 400)
  await t.throwsAsync(ask(true, { ...asDatabase, servername: WEB }), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })

  const website = await forwarded(webPod)
  const reply = await answered(false, { port: website.port })
  t.is(reply.status, 200, reply.body)
  const seen = new X509Certificate(decodeURIComponent(reply.body))
  t.is(seen.subjectAltName, `DNS:${WEB}`)
  t.true(seen.verify(new X509Certificate(ca).publicKey))
  t.is((await ask(false, { port: website.port, path: '/other' })).status, 502, 'the database under another name')
  const issued = (await tenant.admin.listAudit()).filter(({ action }) => action === 'identity.issue')
  t.deepEqual(new Set(issued.map(({ subject }) => subject.split(' ')[0])), new Set([DB, WEB]))
})

/** Where outsiders find the CA of pods. */
function caRequest(tenant: Tenant): RequestOptions {
  const { port } = new URL(tenant.verifier.url)
  return { port, path: '/.well-known/identity-ca.pem', servername: 'localhost' }
}
