import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile, writeUserFile } from '../files.ts'

const NEW_LINE = Buffer.from('\n')

export const verifierCollateral: CommandSpec = {
  path: 'verifier collateral',
  summary:
    'Lists the certificates, revocation lists and TCB information of AMD and Intel that a verifier keeps, and carries them to\none that reaches neither. What is imported is checked like an answer of theirs.',
  operands: 'list | export FILE | import FILE',
  minOperands: 1,
  maxOperands: 2,
  options: ADMIN_OPTIONS,
  examples: [
    'caisson verifier collateral export collateral.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier collateral import collateral.json --url https://offline.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, file] = invocation.operands
      if (action === 'list' && file === undefined) {
        const list = await client.listCollateral()
        const lines = list.map(
          ({ url, fetchedAt, staleAt }) => `${url}  of ${fetchedAt.toISOString()}, until ${staleAt}`,
        )
        invocation.out.result(list, lines.join('\n'))
        return 0
      }
      if (action === 'export' && file !== undefined) {
        const parts: Uint8Array[] = []
        for await (const bundle of client.exportCollateral()) parts.push(bundle, NEW_LINE)
        const bytes = Buffer.concat(parts)
        writeUserFile(file, bytes)
        invocation.out.result({ file, bytes: bytes.byteLength }, `wrote ${file}`)
        return 0
      }
      if (action === 'import' && file !== undefined) {
        let imported = 0
        for (const bundle of bundlesOf(readUserFile(file, 'collateral')))
          imported += await client.importCollateral(bundle)
        invocation.out.result({ imported }, `${imported} answers of AMD and Intel imported`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `list`, `export FILE` or `import FILE`', {
        hint: 'See `caisson verifier collateral --help`.',
      })
    }),
}

/** A bundle on each line, where there are several; one alone may have been laid out anew. */
function bundlesOf(bytes: Uint8Array): readonly Uint8Array[] {
  const lines = Buffer.from(bytes).toString('utf8').split('\n')
  const bundles = lines.filter((line) => line.trim() !== '')
  const isEach = bundles.every((line) => line.startsWith('{') && line.trimEnd().endsWith('}'))
  return isEach && bundles.length > 1 ? bundles.map((line) => Buffer.from(line)) : [bytes]
}
