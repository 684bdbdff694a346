import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile, writeUserFile } from '../files.ts'

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
        const bundle = Buffer.from(await client.exportCollateral())
        writeUserFile(file, bundle.toString('utf8'))
        invocation.out.result({ file, bytes: bundle.byteLength }, `wrote ${file}`)
        return 0
      }
      if (action === 'import' && file !== undefined) {
        const imported = await client.importCollateral(readUserFile(file, 'collateral'))
        invocation.out.result({ imported }, `${imported} answers of AMD and Intel imported`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `list`, `export FILE` or `import FILE`', {
        hint: 'See `caisson verifier collateral --help`.',
      })
    }),
}
