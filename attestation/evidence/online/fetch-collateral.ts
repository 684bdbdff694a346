/**
 * Collateral from AMD and Intel, for what a first look at the evidence left unchecked. The addresses are fixed: of the
 * evidence, only identifiers of a known form go into them. What comes back is collateral like any other, so whoever answers
 * can at most withhold something.
 */
import { errorText } from '#protocol/errors'
import { type Collateral, type CollateralFile, readCollateral } from '../collateral.ts'
import type { Claims } from '../verdict.ts'
import { kdsRequests } from './amd-kds.ts'
import { pcsRequests } from './intel-pcs.ts'

export interface CollateralRequest {
  readonly url: string
  /** Headers of the answer that hold certificates. */
  readonly chainHeaders: readonly string[]
  /** An identifier out of the evidence is in it, so there is no end of such addresses; of others there are a dozen. */
  readonly chosen: boolean
}

/** Origins, without a slash at the end. */
export interface Endpoints {
  readonly amdKds: string
  readonly intelPcs: string
  readonly intelCertificates: string
}

export const PUBLIC_ENDPOINTS: Endpoints = {
  amdKds: 'https://kdsintf.amd.com',
  intelPcs: 'https://api.trustedservices.intel.com',
  intelCertificates: 'https://certificates.trustedservices.intel.com',
}

const MAX_ANSWER_BYTES = 4_194_304
const TIMEOUT_MS = 20_000

/**
 * What could not be fetched is `ignored`, with the reason: the verdict then says what stayed unchecked.
 * @param claims of a first judgement of the evidence
 */
export async function fetchCollateral(claims: Claims, endpoints: Endpoints = PUBLIC_ENDPOINTS): Promise<Collateral> {
  const requests = [...kdsRequests(claims, endpoints), ...pcsRequests(claims, endpoints)]
  const answers = await Promise.all(requests.map((request) => attempt(request)))
  const collateral = readCollateral(answers.flatMap(({ files }) => files))
  return { ...collateral, ignored: [...collateral.ignored, ...answers.flatMap(({ ignored }) => ignored)] }
}

interface Answer {
  readonly files: readonly CollateralFile[]
  readonly ignored: Collateral['ignored']
}

async function attempt(request: CollateralRequest): Promise<Answer> {
  try {
    return { files: await fetchFiles(request), ignored: [] }
  } catch (error) {
    const why = error instanceof Error && error.cause !== undefined ? errorText(error.cause) : errorText(error)
    return { files: [], ignored: [{ name: request.url, why: `could not be fetched: ${why}` }] }
  }
}

async function fetchFiles({ url, chainHeaders }: CollateralRequest): Promise<CollateralFile[]> {
  const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) })
  const body = await readBody(response)
  if (response.status !== 200) throw new Error(`HTTP status ${response.status}`)
  const chains = chainHeaders.flatMap((name) => {
    const value = response.headers.get(name)
    return value === null ? [] : [{ name: `${url} ${name}`, bytes: new TextEncoder().encode(value) }]
  })
  return [{ name: url, bytes: body }, ...chains]
}

async function readBody(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  // Node gives bytes; the type says that another engine might not.
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    length += chunk.length
    if (length > MAX_ANSWER_BYTES) throw new Error(`more than ${MAX_ANSWER_BYTES} bytes`)
    chunks.push(chunk)
  }
  return new Uint8Array(Buffer.concat(chunks))
}
