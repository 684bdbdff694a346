/**
 * ID blocks among the collateral: JSON with `id_block` and `id_auth` in base64, as `caisson measure id-block` prints it. A
 * report states the keys' digests in any case; with the block at hand the signatures are checked as well.
 */
import { fromBase64 } from '#protocol/encoding'
import type { CollateralDocument } from '../../evidence/collateral.ts'
import type { Finding } from '../../evidence/verdict.ts'
import { parseIdAuth, parseIdBlock } from '../parse/id-block.ts'
import type { SnpReport } from '../parse/report.ts'
import { idBlockMismatches } from '../verify/id-block.ts'

/**
 * Nothing without such a document, or when the report is of a guest launched from one of them.
 * Throws `MalformedError` ERR_SNP_ID_BLOCK or ERR_BASE64.
 */
export function idBlockFindings(report: SnpReport, documents: readonly CollateralDocument[]): Finding[] {
  const found = documents.flatMap(({ name, text }) => {
    const members = readMembers(text)
    return members === undefined ? [] : [{ name, mismatches: mismatchesOf(report, members) }]
  })
  const [closest] = found.toSorted((a, b) => a.mismatches.length - b.mismatches.length)
  if (closest === undefined || closest.mismatches.length === 0) return []
  return [
    {
      severity: 'contraindicated',
      code: 'id_block_mismatch',
      message: `the guest was not launched from the ID block in ${JSON.stringify(closest.name)}`,
      expected: 'a report that agrees with the ID block and its keys',
      found: `disagreement about ${closest.mismatches.join(', ')}`,
      remedy: 'Launch the guest with this ID block, or judge it without it.',
    },
  ]
}

interface IdMembers {
  readonly block: string
  readonly auth: string
}

/** Undefined: another document. */
function readMembers(text: string): IdMembers | undefined {
  if (!text.includes('"id_block"') || !text.includes('"id_auth"')) return undefined
  const { id_block: block, id_auth: auth } = JSON.parse(text) as Record<string, unknown>
  return typeof block === 'string' && typeof auth === 'string' ? { block, auth } : undefined
}

function mismatchesOf(report: SnpReport, { block, auth }: IdMembers): string[] {
  return idBlockMismatches(
    report,
    parseIdBlock(fromBase64(block, 'id_block')),
    parseIdAuth(fromBase64(auth, 'id_auth')),
  )
}
