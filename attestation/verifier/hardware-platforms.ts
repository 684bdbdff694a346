/** How the KBS service reads evidence of each kind of hardware, and what of it is bound to initdata and reference values. */
import type { JsonValue } from '#protocol/canonical-json'
import { MalformedError } from '#protocol/errors'
import { appraiseAzure } from '../azure/appraise.ts'
import { parseAzureEvidence } from '../azure/parse/evidence.ts'
import type { AppraisalContext } from '../evidence/context.ts'
import type { Steps } from '../evidence/steps.ts'
import type { Appraisal, Claims, Tee } from '../evidence/verdict.ts'
import { appraiseSnp } from '../snp/appraise.ts'
import { parseSnpEvidence } from '../snp/parse/evidence.ts'
import { VekChainCache } from '../snp/verify/vek-chain-cache.ts'
import { appraiseTdx } from '../tdx/appraise.ts'
import { rtmrReplaySteps, runtimeReplaySteps } from '../tdx/evaluate/event-log.ts'
import { tdxEvidenceSteps } from '../tdx/parse/evidence.ts'
import { EndorsementCache } from '../tdx/verify/endorsement-cache.ts'
import { describeSteps } from '../tpm/parse/describe-log.ts'
import type { InitdataField } from './initdata-check.ts'
import type { Measured } from './reference-match.ts'

export interface ReadEvidence {
  /** Throws as the module of the TEE does. */
  readonly appraise: (context: AppraisalContext) => Appraisal
  readonly initdata: (claims: Claims) => InitdataField
  /** Undefined where only the policy's own lists say what may boot: what starts Azure's guests is in its PCRs. */
  readonly measured: (claims: Claims) => Measured | undefined
}

export interface HardwarePlatform {
  /** Names in the KBS protocol: those that clients of different versions use. */
  readonly tees: readonly string[]
  /** As policies name it. */
  readonly kind: Tee
  /** Throws `MalformedError` for what is no such evidence. Pauses in whatever is as long as its sender makes it. */
  readonly read: (primaryEvidence: JsonValue) => Steps<ReadEvidence>
}

const HOST_DATA_BYTES = 32
const MR_CONFIG_ID_BYTES = 48
const PCR_BYTES = 32
const INITDATA_PCR = '8'

export function hardwarePlatforms(): readonly HardwarePlatform[] {
  const chains = new VekChainCache()
  const endorsements = new EndorsementCache()
  return [
    { tees: ['snp'], kind: 'snp', read: (evidence) => readSnp(evidence, chains) },
    { tees: ['tdx'], kind: 'tdx', read: (evidence) => readTdx(evidence, endorsements) },
    { tees: ['az-snp-vtpm', 'azsnpvtpm'], kind: 'snp', read: (evidence) => readAzure(evidence, 'az-snp-vtpm') },
    { tees: ['az-tdx-vtpm', 'aztdxvtpm'], kind: 'tdx', read: (evidence) => readAzure(evidence, 'az-tdx-vtpm') },
  ]
}

function* readSnp(primaryEvidence: JsonValue, cache: VekChainCache): Steps<ReadEvidence> {
  const evidence = parseSnpEvidence(primaryEvidence)
  yield
  return {
    appraise: (context) => appraiseSnp(evidence, context, cache),
    initdata: ({ host_data }) => ({
      name: 'HOST_DATA',
      found: textOf(host_data),
      bytes: HOST_DATA_BYTES,
      extended: false,
    }),
    measured: ({ measurement }) => ({ platform: 'snp', measurement: textOf(measurement) ?? '' }),
  }
}

function* readTdx(primaryEvidence: JsonValue, cache: EndorsementCache): Steps<ReadEvidence> {
  const evidence = yield* tdxEvidenceSteps(primaryEvidence)
  const { eventLog, runtimeLog } = evidence
  if (eventLog !== undefined) {
    yield* rtmrReplaySteps(eventLog)
    yield* describeSteps(eventLog)
  }
  if (runtimeLog !== undefined) yield* runtimeReplaySteps(runtimeLog)
  return {
    appraise: (context) => appraiseTdx(evidence, context, cache),
    initdata: ({ mr_config_id }) => ({
      name: 'MRCONFIGID',
      found: textOf(mr_config_id),
      bytes: MR_CONFIG_ID_BYTES,
      extended: false,
    }),
    measured: (claims) => ({
      platform: 'tdx',
      mrtd: textOf(claims.mrtd) ?? '',
      rtmrs: [0, 1, 2, 3].map((index) => textOf(claims[`rtmr${index}`]) ?? ''),
      eventLog: evidence.eventLog,
    }),
  }
}

function* readAzure(primaryEvidence: JsonValue, form: 'az-snp-vtpm' | 'az-tdx-vtpm'): Steps<ReadEvidence> {
  const evidence = parseAzureEvidence(primaryEvidence)
  yield
  if (evidence.form !== form) {
    throw new MalformedError('ERR_AZURE_EVIDENCE', `evidence: ${evidence.form} where ${form} was announced`)
  }
  return {
    appraise: (context) => appraiseAzure(evidence, context, form === 'az-snp-vtpm' ? 'snp' : 'tdx'),
    initdata: ({ pcrs }) => ({
      name: 'PCR 8',
      found: textOf(memberOf(memberOf(pcrs, 'sha256'), INITDATA_PCR)),
      bytes: PCR_BYTES,
      extended: true,
    }),
    measured: () => undefined,
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined
}
