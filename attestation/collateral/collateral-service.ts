/**
 * Collateral of AMD and Intel for all tenants of a verifier: asked for once, kept in the store for every replica, asked for
 * again before it ends. When a maker does not answer, what is there goes on being used; each appraisal looks at its dates.
 *
 * Addresses are the makers' own, whoever is asked in their place: they are made from identifiers of a known form and name
 * what is kept. Nothing that evidence calls an address is ever used.
 */
import { CaissonError, UnverifiedError } from '#protocol/errors'
import { type Collateral, type CollateralFile, mergeCollateral } from '../evidence/collateral.ts'
import { kdsRequests } from '../evidence/online/amd-kds.ts'
import { type CollateralRequest, type Endpoints, PUBLIC_ENDPOINTS } from '../evidence/online/fetch-collateral.ts'
import { pcsRequests } from '../evidence/online/intel-pcs.ts'
import type { Claims } from '../evidence/verdict.ts'
import type { Sql } from '../store/database.ts'
import type { ParsedCertificate } from '../x509/certificate.ts'
import type { AnswerStore, StoredAnswer } from './answer-store.ts'
import type { BundledAnswer } from './bundle.ts'
import type { CollateralSource, FetchedCollateral, KnownCollateral, WantedCollateral } from './source.ts'
import { UnprovenQuestions } from './unproven-questions.ts'
import { type ValidAnswer, validateAnswer } from './validate-answer.ts'
import type { VendorClient } from './vendor-client.ts'

export interface CollateralServiceOptions {
  readonly store: AnswerStore
  /** Undefined: nobody is asked; the store holds what was imported. */
  readonly client: VendorClient | undefined
  /** Who is asked in the makers' place. Default: they themselves. */
  readonly endpoints?: Endpoints
  /** Roots besides AMD's and Intel's whose answers are kept. */
  readonly anchors?: readonly ParsedCertificate[]
  readonly now: () => Date
  /** Told of answers that were not kept, and of services that did not answer. */
  readonly onProblem?: (url: string, error: unknown) => void
}

interface Kept extends ValidAnswer {
  readonly fetchedAt: Date
}

/** Answers that were checked. */
export interface PreparedAnswers {
  /** In the transaction of the caller: all of them. */
  write(sql: Sql): Promise<void>
  /** After that was committed. */
  remember(): void
}

/** For whom a question is asked. */
interface Asker {
  readonly tenant: string
  /** Questions of its own about what evidence chose. */
  questions: number
}

/** What is in memory of what is in the store. */
const MAX_IN_MEMORY = 1_000
/** A service that failed, or has no such thing, is asked again after this long. */
const RETRY_AFTER_MS = 60_000

export class CollateralService implements CollateralSource {
  readonly #options: Required<Pick<CollateralServiceOptions, 'endpoints' | 'anchors' | 'onProblem'>> &
    CollateralServiceOptions
  readonly #kept = new Map<string, Kept>()
  readonly #failedAt = new Map<string, number>()
  readonly #underWay = new Map<string, Promise<Kept | undefined>>()
  /** The same objects for the same answers: appraisals remember what they verified by object. */
  readonly #merged = new Map<string, Collateral>()
  readonly #unproven: UnprovenQuestions
  readonly #counts = { hits: 0, fetched: 0, failed: 0, refused: 0, withheld: 0 }

  constructor(options: CollateralServiceOptions) {
    this.#options = { endpoints: PUBLIC_ENDPOINTS, anchors: [], onProblem: () => {}, ...options }
    this.#unproven = new UnprovenQuestions(options.now)
  }

  /** For metrics. `withheld`: questions that were not asked, since their tenant had asked for too much made-up evidence. */
  get counts(): Readonly<Record<'hits' | 'fetched' | 'failed' | 'refused' | 'withheld', number>> {
    return { ...this.#counts }
  }

  async known(claims: Claims, wanted: WantedCollateral): Promise<KnownCollateral> {
    const requests = requestsFor(claims, wanted)
    const found = await Promise.all(requests.map(({ url }) => this.#stored(url)))
    const complete = requests.every(({ url }, index) => !this.#isWorthAsking(url, found[index]))
    if (complete) this.#counts.hits++
    return { collateral: this.#merge(requests, found), complete }
  }

  async fetched(claims: Claims, wanted: WantedCollateral): Promise<FetchedCollateral> {
    const requests = requestsFor(claims, wanted)
    const asker: Asker = { tenant: wanted.tenant, questions: 0 }
    const found = await Promise.all(requests.map((request) => this.#fresh(request, asker)))
    return {
      collateral: this.#merge(requests, found),
      proven: () => this.#unproven.giveBack(asker.tenant, asker.questions),
    }
  }

  /**
   * Checks what somebody fetched elsewhere, as if it had been fetched now; nothing is kept yet.
   * Throws as `validateAnswer` when one of them is not to be kept.
   */
  async prepare(answers: readonly BundledAnswer[]): Promise<PreparedAnswers> {
    const prepared: { readonly answer: StoredAnswer; readonly kept: Kept }[] = []
    for (const { url, files } of answers) {
      const kept = await this.#newer(url, files)
      if (kept !== undefined) prepared.push({ answer: { ...kept, url, files }, kept })
    }
    return {
      write: async (sql) => {
        await this.#options.store.putAll(
          sql,
          prepared.map(({ answer }) => answer),
        )
      },
      remember: () => {
        for (const { answer, kept } of prepared) this.#takeIn(answer.url, kept)
      },
    }
  }

  #isWorthAsking(url: string, kept: Kept | undefined): boolean {
    if (this.#options.client === undefined) return false
    const nowMs = this.#options.now().getTime()
    if (kept !== undefined && kept.staleAt.getTime() > nowMs) return false
    const failedMs = this.#failedAt.get(url)
    return failedMs === undefined || nowMs - failedMs >= RETRY_AFTER_MS || nowMs < failedMs
  }

  async #stored(url: string): Promise<Kept | undefined> {
    const kept = this.#kept.get(url)
    if (kept !== undefined && kept.staleAt > this.#options.now()) return kept
    const stored = await this.#options.store.find(url) // another replica may have asked meanwhile
    if (stored === undefined || stored.fetchedAt.getTime() === kept?.fetchedAt.getTime()) return kept
    try {
      const { staleAt, fetchedAt, files } = stored
      return this.#remember(url, { ...this.#validate(url, files, fetchedAt), staleAt, fetchedAt })
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      this.#options.onProblem(url, error)
      return kept
    }
  }

  /** One question for all that wait for its answer. */
  async #fresh(request: CollateralRequest, asker: Asker): Promise<Kept | undefined> {
    const kept = await this.#stored(request.url)
    if (!this.#isWorthAsking(request.url, kept)) return kept
    const underWay = this.#underWay.get(request.url)
    if (underWay !== undefined) return await underWay
    if (kept === undefined && request.chosen && !this.#mayAsk(asker)) return undefined
    const asked = this.#ask(request, asker, kept).finally(() => this.#underWay.delete(request.url))
    this.#underWay.set(request.url, asked)
    return await asked
  }

  #mayAsk(asker: Asker): boolean {
    if (!this.#unproven.take(asker.tenant)) {
      this.#counts.withheld++
      return false
    }
    asker.questions++
    return true
  }

  async #ask(request: CollateralRequest, { tenant }: Asker, kept: Kept | undefined): Promise<Kept | undefined> {
    const { client, endpoints, onProblem, now } = this.#options
    const { url } = request
    try {
      const files = await client?.get({ ...request, url: addressAt(endpoints, url) }, tenant)
      if (files === undefined) {
        this.#note(url, now().getTime())
        return kept
      }
      this.#counts.fetched++
      const found = await this.#keep(url, files)
      if (found === undefined) throw olderThanKnown(url)
      return found
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      this.#counts[error.code === 'ERR_COLLATERAL_FETCH' ? 'failed' : 'refused']++
      this.#note(url, now().getTime())
      onProblem(url, error)
      return kept
    }
  }

  async #keep(url: string, files: readonly CollateralFile[]): Promise<Kept | undefined> {
    const kept = await this.#newer(url, files)
    if (kept === undefined) return undefined
    await this.#options.store.put({ ...kept, url, files })
    return this.#takeIn(url, kept)
  }

  /** What is in the store now: whatever failed before, it is there. */
  #takeIn(url: string, kept: Kept): Kept {
    this.#failedAt.delete(url)
    return this.#remember(url, kept)
  }

  /** Undefined: a service that goes back in time hides what was revoked since. Throws as `validateAnswer`. */
  async #newer(url: string, files: readonly CollateralFile[]): Promise<Kept | undefined> {
    const fetchedAt = this.#options.now()
    const valid = this.#validate(url, files, fetchedAt)
    const before = await this.#stored(url)
    const isOlder = before?.issuedAt !== undefined && valid.issuedAt !== undefined && valid.issuedAt < before.issuedAt
    return isOlder ? undefined : { ...valid, fetchedAt }
  }

  #validate(url: string, files: readonly CollateralFile[], at: Date): ValidAnswer {
    return validateAnswer(url, files, { anchors: this.#options.anchors, at })
  }

  #remember(url: string, kept: Kept): Kept {
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= MAX_IN_MEMORY && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(url, kept)
    return kept
  }

  #note(url: string, atMs: number): void {
    const [oldest] = this.#failedAt.keys()
    if (this.#failedAt.size >= MAX_IN_MEMORY && oldest !== undefined) this.#failedAt.delete(oldest)
    this.#failedAt.set(url, atMs)
  }

  #merge(requests: readonly CollateralRequest[], found: readonly (Kept | undefined)[]): Collateral {
    const key = requests.map(({ url }, index) => `${url} ${found[index]?.fetchedAt.getTime() ?? '-'}`).join('\n')
    const known = this.#merged.get(key)
    if (known !== undefined) return known
    const merged = mergeCollateral(...found.flatMap((kept) => (kept === undefined ? [] : [kept.collateral])))
    const [oldest] = this.#merged.keys()
    if (this.#merged.size >= MAX_IN_MEMORY && oldest !== undefined) this.#merged.delete(oldest)
    this.#merged.set(key, merged)
    return merged
  }
}

function requestsFor(claims: Claims, { keyKnown }: WantedCollateral): CollateralRequest[] {
  const amd = kdsRequests(claims, PUBLIC_ENDPOINTS)
  const lists = amd.filter(({ url }) => !keyKnown || url.endsWith('/crl'))
  return [...lists, ...pcsRequests(claims, PUBLIC_ENDPOINTS)]
}

/** Counted and waited for like a service that failed, or it would be asked again by every guest. */
function olderThanKnown(url: string): UnverifiedError {
  return new UnverifiedError(
    'ERR_COLLATERAL_ANSWER',
    `the answer of ${url} is not kept: it is older than what is known`,
    {
      hint: 'Ask who answers there: an old list or document hides what was revoked since.',
    },
  )
}

/** The same path at whoever is asked in the maker's place. */
function addressAt(endpoints: Endpoints, url: string): string {
  const { origin } = new URL(url)
  const names = ['amdKds', 'intelPcs', 'intelCertificates'] as const
  const name = names.find((each) => PUBLIC_ENDPOINTS[each] === origin)
  return name === undefined ? url : `${endpoints[name]}${url.slice(origin.length)}`
}
