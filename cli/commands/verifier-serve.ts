import { existsSync, mkdirSync } from 'node:fs'
import type { JWK } from 'jose'
import { type Endpoints, PUBLIC_ENDPOINTS } from '#attestation/evidence/online/fetch-collateral'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { startVerifier } from '#attestation/verifier/verifier'
import { errorText, UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { parseListen } from '../listen-address.ts'
import { untilStopped } from '../signals.ts'
import { STORE_KEY_OPTION, storeKeyOf } from '../store-key.ts'

export const verifierServe: CommandSpec = {
  path: 'verifier serve',
  summary:
    'Serves attestation and resources to guests until it is stopped. By default no TPM is believed: name the CAs whose\nTPMs you trust.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    state: { type: 'string', placeholder: 'DIR', help: 'where store and administrator’s key are kept' },
    store: {
      type: 'string',
      placeholder: 'FILE|URL',
      help: 'SQLite file, or postgresql:// address for replicas; default: verifier.db in the state directory',
    },
    'store-key': STORE_KEY_OPTION,
    listen: { type: 'string', placeholder: 'HOST:PORT', help: 'address to serve on', default: '127.0.0.1:8443' },
    'tls-cert': { type: 'string', placeholder: 'FILE', help: 'certificate (PEM)' },
    'tls-key': { type: 'string', placeholder: 'FILE', help: 'private key of the certificate (PEM)' },
    'tls-profile': {
      type: 'string',
      placeholder: 'modern|intermediate',
      help: 'TLS 1.3 alone, or TLS 1.2 as well',
      default: 'intermediate',
    },
    'max-connections': { type: 'string', placeholder: 'N', help: 'more are closed as they come', default: '512' },
    'request-timeout': {
      type: 'string',
      placeholder: 'SECONDS',
      help: 'a request must have arrived completely after this long',
      default: '20',
    },
    'trust-tpm-ca': {
      type: 'string',
      placeholder: 'FILE',
      multiple: true,
      help: 'PEM of a CA whose TPMs are believed',
    },
    metrics: {
      type: 'string',
      placeholder: 'HOST:PORT',
      help: 'serve metrics (Prometheus) here, on loopback; default: nowhere',
    },
    log: { type: 'boolean', help: 'write a line of JSON to standard error for each request' },
    offline: { type: 'boolean', help: 'never ask AMD or Intel for collateral: evidence brings it, or it is imported' },
    'amd-kds': {
      type: 'string',
      placeholder: 'URL',
      help: 'whom to ask for AMD’s collateral',
      default: PUBLIC_ENDPOINTS.amdKds,
    },
    'intel-pcs': {
      type: 'string',
      placeholder: 'URL',
      help: 'whom to ask for Intel’s collateral',
      default: PUBLIC_ENDPOINTS.intelPcs,
    },
    'tpm-ca-intermediate': {
      type: 'string',
      placeholder: 'FILE',
      multiple: true,
      help: 'PEM of a CA below such a root',
    },
  },
  examples: [
    'caisson verifier serve --state ./verifier --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem --trust-tpm-ca tpm-ca.pem',
  ],
  run: async (invocation) => {
    const state = invocation.required('state')
    mkdirSync(state, { recursive: true, mode: 0o700 })
    const adminKeyPath = `${state}/admin.key`
    const pem = (name: string): string => readUserFile(invocation.required(name), name).toString('utf8')
    const pems = (name: string): string[] =>
      invocation.strings(name).map((path) => readUserFile(path, name).toString('utf8'))
    const metrics = invocation.string('metrics')
    const verifier = await startVerifier({
      storePath: invocation.string('store') ?? `${state}/verifier.db`,
      storeKey: await storeKeyOf(invocation, state),
      listen: parseListen(invocation.required('listen'), 'listen'),
      ...(metrics === undefined ? {} : { metrics: parseListen(metrics, 'metrics') }),
      ...(invocation.flag('log')
        ? { onRequest: (line) => invocation.out.progress(JSON.stringify(line), { request: line }) }
        : {}),
      tls: { certificatePem: pem('tls-cert'), privateKeyPem: pem('tls-key') },
      tlsProfile: invocation.oneOf('tls-profile', ['modern', 'intermediate']),
      maxConnections: invocation.integer('max-connections', 1, 65_535),
      requestTimeoutMs: 1000 * invocation.integer('request-timeout', 1, 3600),
      adminKeys: [adminPublicKey(adminKeyPath)],
      trustedTpmCas: pems('trust-tpm-ca'),
      tpmIntermediates: pems('tpm-ca-intermediate'),
      ...(invocation.flag('offline') ? {} : { collateralEndpoints: endpointsOf(invocation) }),
      onCollateralProblem: (url, error) => invocation.out.progress(`collateral ${url}: ${errorText(error)}`),
      onInternalError: (id, error) => invocation.out.progress(`internal error ${id}: ${String(error)}`),
    })
    invocation.out.result(
      { url: verifier.url, metricsUrl: verifier.metricsUrl ?? null, adminKey: adminKeyPath, pid: process.pid },
      `serving ${verifier.url}/kbs/v0, administrator’s key: ${adminKeyPath}`,
    )
    await untilStopped()
    await verifier.close()
    return 0
  },
}

function endpointsOf(invocation: Invocation): Endpoints {
  const origin = (name: string): string => {
    const text = invocation.required(name)
    if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text.replace(/\/+$/, '')
    throw new UsageError('ERR_USAGE', `--${name} ${JSON.stringify(text)} is not an http or https URL`)
  }
  return {
    amdKds: origin('amd-kds'),
    intelPcs: origin('intel-pcs'),
    intelCertificates:
      origin('intel-pcs') === PUBLIC_ENDPOINTS.intelPcs ? PUBLIC_ENDPOINTS.intelCertificates : origin('intel-pcs'),
  }
}

/** The administrator's key is made once and kept; the verifier uses its public half only. */
function adminPublicKey(path: string): JWK {
  if (!existsSync(path)) writeUserFile(path, `${JSON.stringify(createAdminKey().privateJwk)}\n`, 0o600)
  const { d: _private, ...publicJwk } = JSON.parse(readUserFile(path, 'administrator’s key').toString('utf8')) as JWK
  return publicJwk
}
