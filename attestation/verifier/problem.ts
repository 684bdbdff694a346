/**
 * From errors to problem answers: the KBS error shape (`type`, `detail`) with our stable `code` and a correlation id.
 *
 * A guest, and with it the host, learns a code and an id. The tenant finds the reason under that id through the
 * administrator's interface, whose own answers do say what is wrong.
 */
import {
  CaissonError,
  DeniedError,
  MalformedError,
  UnavailableError,
  UnverifiedError,
  UsageError,
} from '#protocol/errors'
import type { HttpReply } from './http-listener.ts'

export interface Problem {
  readonly type: string
  readonly detail: string
  readonly code: string
  readonly correlation_id: string
}

/** Who reads the answer. */
export type Audience = 'guest' | 'administrator'

const TYPE_PREFIX = 'https://github.com/confidential-containers/kbs/errors/'

/** Status and KBS error name of codes for which the error's class does not say enough. */
const BY_CODE: ReadonlyMap<string, readonly [number, string]> = new Map([
  ['ERR_KBS_VERSION', [401, 'AttestationError']],
  ['ERR_BODY_TOO_LARGE', [413, 'HTTPFailed']],
  ['ERR_NO_SUCH_PATH', [404, 'InvalidRequestPath']],
  ['ERR_PLUGIN_NOT_FOUND', [404, 'PluginNotFound']],
  ['ERR_RESOURCE_NAME', [404, 'InvalidRequestPath']],
  ['ERR_RESOURCE_NOT_FOUND', [404, 'PluginInternalError']],
  ['ERR_REFERENCE_NOT_FOUND', [404, 'RvpsError']],
  ['ERR_POLICY_NOT_FOUND', [404, 'ParsePolicyError']],
  ['ERR_POLICY_ID', [400, 'ParsePolicyError']],
  ['ERR_POLICY_MALFORMED', [400, 'ParsePolicyError']],
  ['ERR_CONDITION', [400, 'ParsePolicyError']],
  ['ERR_ATTESTATION_NOT_FOUND', [404, 'AttestationError']],
  ['ERR_IDENTITY_NOT_FOUND', [404, 'ParsePolicyError']],
  ['ERR_CERTIFICATE_REQUEST', [400, 'PluginInternalError']],
  ['ERR_RATE_LIMIT', [429, 'HTTPFailed']],
  ['ERR_TENANT_NOT_FOUND', [404, 'InvalidRequestPath']],
  ['ERR_TENANT_NAME', [404, 'InvalidRequestPath']],
  ['ERR_ADMIN_AUTH', [401, 'AdminAuthAccess']],
  ['ERR_TOKEN_MISSING', [401, 'TokenNotFound']],
  ['ERR_TOKEN_MALFORMED', [401, 'TokenVerifierError']],
  ['ERR_TOKEN_EXPIRED', [401, 'TokenVerifierError']],
  ['ERR_TOKEN_UNKNOWN_KEY', [401, 'TokenVerifierError']],
  ['ERR_TOKEN_SIGNATURE', [401, 'TokenVerifierError']],
  ['ERR_TOKEN_CLAIMS', [401, 'TokenVerifierError']],
  ['ERR_TEE_KEY', [400, 'JweError']],
])

export function problemReply(error: unknown, audience: Audience, correlationId: string): HttpReply {
  const known = error instanceof CaissonError ? error : undefined
  const [status, variant] = classify(known)
  const problem: Problem = {
    type: TYPE_PREFIX + variant,
    detail: audience === 'guest' ? guestDetail(known) : administratorDetail(known),
    code: known?.code ?? 'ERR_INTERNAL',
    correlation_id: correlationId,
  }
  return { status, body: problem }
}

function classify(error: CaissonError | undefined): readonly [number, string] {
  const byCode = error === undefined ? undefined : BY_CODE.get(error.code)
  if (byCode !== undefined) return byCode
  if (error instanceof MalformedError || error instanceof UsageError) return [400, 'SerdeError']
  if (error instanceof UnverifiedError) return [401, 'AttestationError']
  if (error instanceof DeniedError) return [403, 'PolicyDeny']
  if (error instanceof UnavailableError) return [503, 'StorageBackendInitialization']
  return [500, 'HTTPFailed']
}

function guestDetail(error: CaissonError | undefined): string {
  // Existing KBS clients look for this sentence.
  if (error?.code === 'ERR_KBS_VERSION') return 'KBS Client Protocol Version Mismatch'
  return 'the verifier keeps the reason for the tenant under the correlation id'
}

function administratorDetail(error: CaissonError | undefined): string {
  if (error === undefined) return 'internal error; the verifier logged it'
  return error.hint === undefined ? error.message : `${error.message}. ${error.hint}`
}
