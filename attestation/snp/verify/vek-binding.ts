/** Is this certificate about the key that this report must have been signed with? (AMD 57230, chapter 3.) */
import { equalBytes, toHex } from '#protocol/encoding'
import type { Finding } from '../../evidence/verdict.ts'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { nameAttribute } from '../../x509/name.ts'
import type { SnpReport } from '../parse/report.ts'
import { tcbText } from '../parse/tcb.ts'
import type { VekExtensions } from '../parse/vek-extensions.ts'
import { type ProductLine, productOfCpuid } from '../product.ts'
import type { VekKind } from './vek-chain.ts'

const COMMON_NAME = '2.5.4.3'
const KNOWN_STRUCT_VERSION = 1
const KIND_NAMES: Readonly<Record<VekKind, string>> = { vcek: 'SEV-VCEK', vlek: 'SEV-VLEK' }

/** Which kind of key a certificate says that it is about; undefined for certificates of something else. */
export function vekKind({ subject }: ParsedCertificate): VekKind | undefined {
  const name = nameAttribute(subject, COMMON_NAME)
  return name === KIND_NAMES.vcek ? 'vcek' : name === KIND_NAMES.vlek ? 'vlek' : undefined
}

/** Has the host masked the chip's id? */
export function isChipMasked({ chipId }: SnpReport): boolean {
  return chipId.every((byte) => byte === 0)
}

/** @param rootProduct product of the root that the certificate leads to, where it says one */
export function bindingFindings(
  report: SnpReport,
  vek: { readonly kind: VekKind; readonly extensions: VekExtensions },
  rootProduct: ProductLine | undefined,
): Finding[] {
  const { kind, extensions } = vek
  const findings: Finding[] = []
  const refuse = (code: string, message: string, compared: { expected: string; found: string }): void => {
    const remedy = 'Fetch the certificate for this chip and this TCB from AMD’s key distribution service.'
    findings.push({ severity: 'contraindicated', code, message, ...compared, remedy })
  }
  if ((report.signingKey === 'vcek' || report.signingKey === 'vlek') && report.signingKey !== kind) {
    const compared = { expected: KIND_NAMES[report.signingKey], found: KIND_NAMES[kind] }
    refuse('signing_key', 'the certificate is of another kind of key than the report names', compared)
  }
  if (!equalBytes(extensions.tcb, report.reportedTcb)) {
    const expected = tcbText(report.reportedTcb, extensions.product)
    const compared = { expected, found: tcbText(extensions.tcb, extensions.product) }
    refuse('tcb_mismatch', 'the certificate is of a key for another TCB than the report states', compared)
  }
  findings.push(...shapeFindings(kind, extensions), ...productFindings(report, extensions.product, rootProduct))
  const { hwid } = extensions
  if (kind === 'vcek' && hwid !== undefined && !isChipMasked(report) && !isSameChip(report.chipId, hwid)) {
    const compared = { expected: toHex(report.chipId), found: toHex(hwid) }
    refuse('chip_mismatch', 'the certificate is of another chip', compared)
  }
  return findings
}

/** A shorter id (Turin) fills the field from its start; the rest is zero. */
function isSameChip(chipId: Uint8Array, hwid: Uint8Array): boolean {
  return equalBytes(chipId.subarray(0, hwid.length), hwid) && chipId.subarray(hwid.length).every((byte) => byte === 0)
}

/** A VCEK names its chip, a VLEK the provider that leases it. */
function shapeFindings(kind: VekKind, { hwid, cspId, structVersion }: VekExtensions): Finding[] {
  const right = kind === 'vcek' ? hwid !== undefined && cspId === undefined : hwid === undefined && cspId !== undefined
  if (right && structVersion <= KNOWN_STRUCT_VERSION) return []
  return [
    {
      severity: 'contraindicated',
      code: 'vek_certificate',
      message: `the certificate of the ${kind.toUpperCase()} does not say what such certificates say`,
      expected: kind === 'vcek' ? 'a hardware id and no provider' : 'a provider and no hardware id',
      found: `structure ${structVersion}, ${hwid === undefined ? 'no' : 'a'} hardware id, ${cspId === undefined ? 'no' : 'a'} provider`,
      remedy: 'Fetch the certificate from AMD’s key distribution service.',
    },
  ]
}

/** The root says a product, so does the key's certificate, and since version 3 the report. */
function productFindings({ cpuid }: SnpReport, product: ProductLine, rootProduct: ProductLine | undefined): Finding[] {
  const finding = (message: string, found: string): Finding => ({
    severity: 'contraindicated',
    code: 'product_mismatch',
    message,
    expected: product,
    found,
    remedy: 'Use the certificates of the product that the report comes from.',
  })
  const reported = cpuid === undefined ? product : productOfCpuid(cpuid)
  return [
    ...(rootProduct !== undefined && rootProduct !== product
      ? [finding('the root is of another product than the key’s certificate', rootProduct)]
      : []),
    ...(reported !== product
      ? [
          finding(
            'the report comes from another processor than the key’s certificate names',
            reported ?? cpuidText(cpuid),
          ),
        ]
      : []),
  ]
}

function cpuidText(cpuid: SnpReport['cpuid']): string {
  return `family ${cpuid?.family}, model ${cpuid?.model}, stepping ${cpuid?.stepping}`
}
