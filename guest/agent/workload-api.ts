/**
 * What containers may ask of the guest at 127.0.0.1:8006: resources of the verifier, the attestation token, evidence. Who
 * asks is told by the kernel, not by the caller: the process that holds the other end of the connection lies in the
 * control group of one container, and that container's rule decides. Whoever cannot be told is refused.
 */
import type { ApiRequest } from '#policies/api-rule'
import { canonicalJsonBytes, type JsonValue } from '#protocol/canonical-json'
import { CaissonError, DeniedError, UnavailableError } from '#protocol/errors'
import type { LocalRequest, LocalResponse, Platform } from '../platform/platform.ts'
import { type ApiCall, parseApiTarget } from './api-call.ts'
import { CONTAINERS_CGROUP } from './container-cgroup.ts'
import { MAX_SECRET_BYTES } from './limits.ts'
import type { Refusals } from './reasons.ts'

export const WORKLOAD_API_PORT = 8006

export interface WorkloadApiOptions {
  readonly platform: Pick<Platform, 'network'>
  readonly policy: { admitApi(containerId: string, request: ApiRequest): void }
  /** Containers that exist, by their control groups. */
  readonly containers: () => readonly { readonly id: string; readonly cgroupPath: string }[]
  readonly refusals: Refusals
  /** Undefined on platform `none`. */
  readonly verifier:
    | {
        getResource(path: string): Promise<Uint8Array>
        token(): Promise<string>
        evidence(runtimeData: Uint8Array): Promise<JsonValue>
      }
    | undefined
}

/** Listens; rejects when the port is taken. */
export async function startWorkloadApi(options: WorkloadApiOptions): Promise<void> {
  const api = new WorkloadApi(options)
  await options.platform.network.serveLocal(WORKLOAD_API_PORT, (request) => api.answer(request))
}

const HOSTS: ReadonlySet<string> = new Set([`127.0.0.1:${WORKLOAD_API_PORT}`, `localhost:${WORKLOAD_API_PORT}`])
const STATUS: Readonly<Record<string, number>> = { ERR_API_PATH: 404, ERR_API_METHOD: 405, ERR_API_REQUEST: 400 }

export class WorkloadApi {
  readonly #options: WorkloadApiOptions

  constructor(options: WorkloadApiOptions) {
    this.#options = options
  }

  /** Never rejects: what goes wrong is an answer, with a code and the id under which the reason is kept. */
  async answer(request: LocalRequest): Promise<LocalResponse> {
    try {
      const container = await this.#caller(request)
      checkForm(request)
      const call = parseApiTarget(request.target)
      this.#options.policy.admitApi(container, call)
      return await this.#serve(call)
    } catch (error) {
      return this.#refusal(error)
    }
  }

  /** Id of the one container whose processes hold the connection. @throws DeniedError ERR_API_CALLER */
  async #caller({ peerPort }: LocalRequest): Promise<string> {
    const groups = await this.#options.platform.network.localPeer(WORKLOAD_API_PORT, peerPort)
    const names = new Set(groups.map(containerGroup))
    const [name, ...others] = names
    const known = this.#options.containers().find(({ cgroupPath }) => cgroupPath === name)
    // A connection that two containers hold could be answered to the wrong one.
    if (known !== undefined && others.length === 0) return known.id
    throw new DeniedError('ERR_API_CALLER', 'the caller is no process of one container', {
      field: 'api',
      allowed: 'processes of one container',
      asked: groups.length === 0 ? 'nobody that could be found' : [...new Set(groups)].slice(0, 8).join(', '),
    })
  }

  async #serve(call: ApiCall): Promise<LocalResponse> {
    const { verifier } = this.#options
    if (call.kind === 'info') return json({ tee: verifier === undefined ? 'none' : 'tpm', additional_tees: [] })
    if (verifier === undefined) {
      throw new UnavailableError('ERR_RESOURCE_UNAVAILABLE', 'there is no verifier on this platform', {
        hint: 'Run on a platform that has attestation.',
      })
    }
    switch (call.kind) {
      case 'resource':
        return bytes(await verifier.getResource(call.resource))
      case 'token':
        // Without `tee_keypair`: whoever had that key could open every resource of the guest.
        return json({ token: await verifier.token() })
      case 'evidence':
        return json(await verifier.evidence(call.runtimeData))
    }
  }

  #refusal(error: unknown): LocalResponse {
    const { code, correlationId } = this.#options.refusals.record(error, 'loopback endpoint')
    const status = error instanceof DeniedError ? 403 : (STATUS[code] ?? 500)
    // The reader is the tenant's own workload; of what broke inside it learns the code alone.
    const message = status < 500 && error instanceof CaissonError ? error.message : 'the guest could not answer'
    return { ...json({ code, correlation_id: correlationId, message }), status }
  }
}

function checkForm({ method, host }: LocalRequest): void {
  if (method !== 'GET') throw new CaissonError('ERR_API_METHOD', 'only GET is answered')
  // A name that somebody else's DNS points here must not make a browser inside the guest a caller.
  if (!HOSTS.has(host)) throw new CaissonError('ERR_API_REQUEST', 'the Host header is not that of this endpoint')
}

/** "/caisson/c1/whatever" → "/caisson/c1"; everything else as it is, which is no container's. */
function containerGroup(cgroup: string): string {
  if (!cgroup.startsWith(`${CONTAINERS_CGROUP}/`)) return cgroup
  const end = cgroup.indexOf('/', CONTAINERS_CGROUP.length + 1)
  return end < 0 ? cgroup : cgroup.slice(0, end)
}

function json(value: JsonValue): LocalResponse {
  return { status: 200, contentType: 'application/json', body: canonicalJsonBytes(value) }
}

function bytes(body: Uint8Array): LocalResponse {
  if (body.byteLength <= MAX_SECRET_BYTES) return { status: 200, contentType: 'application/octet-stream', body }
  throw new UnavailableError('ERR_SECRET_UNAVAILABLE', `the resource has more than ${MAX_SECRET_BYTES} bytes`)
}
