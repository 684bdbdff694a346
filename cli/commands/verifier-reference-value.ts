import { diffReferences } from '#attestation/measure/reference-diff'
import { parseReferenceDocument } from '#attestation/measure/reference-document'
import { parseReleaseManifest, readReleaseKey } from '#attestation/measure/release-manifest'
import type { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'
import { momentOf } from '../moment.ts'

export const verifierReferenceValue: CommandSpec = {
  path: 'verifier reference-value',
  summary:
    'Registers what genuine guests measure, as `caisson measure` predicts it; lists and removes it; tells what differs.\nWith --release-key, all documents of a signed release at once (`caisson measure release`).',
  operands: 'register FILE | diff FILE [ID] | list | promote ID | retire ID | remove ID',
  minOperands: 1,
  maxOperands: 3,
  options: {
    ...ADMIN_OPTIONS,
    'release-key': {
      type: 'string',
      placeholder: 'FILE',
      help: 'register: PEM of the key that must have signed FILE, a release manifest',
    },
    candidate: { type: 'boolean', help: 'register: matches nothing until it is promoted' },
    until: {
      type: 'string',
      placeholder: 'TIME',
      help: 'retire: counts until then, such as 2026-01-31T12:00Z; default: not any more',
    },
  },
  examples: [
    'caisson verifier reference-value register reference.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier reference-value register release-2.4.0.json --release-key release.pub --candidate --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier reference-value list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, operand, more] = invocation.operands
      if (action === 'diff' && operand !== undefined) return await diff(invocation, client, operand, more)
      if (more !== undefined) throw usage()
      if (action === 'register' && operand !== undefined) {
        return await register(invocation, client, operand)
      }
      if (action === 'list' && operand === undefined) {
        const list = await client.listReferences()
        invocation.out.result(
          list,
          list
            .map(
              (item) =>
                `${item.id}  ${item.createdAt.toISOString()}  ${item.state}${item.until === null ? '' : ` until ${item.until}`}`,
            )
            .join('\n'),
        )
        return 0
      }
      if (action === 'promote' && operand !== undefined) {
        await client.promoteReference(operand)
        invocation.out.result({ promoted: operand }, `${operand} counts`)
        return 0
      }
      if (action === 'retire' && operand !== undefined) {
        const until = momentOf(invocation, 'until')
        await client.retireReference(operand, until)
        invocation.out.result(
          { retired: operand, until: until?.toISOString() ?? null },
          `${operand} counts ${until === undefined ? 'no more' : `until ${until.toISOString()}`}`,
        )
        return 0
      }
      if (action === 'remove' && operand !== undefined) {
        await client.removeReference(operand)
        invocation.out.result({ removed: operand }, `removed ${operand}`)
        return 0
      }
      throw usage()
    }),
}

async function register(invocation: Invocation, client: VerifierAdminClient, file: string): Promise<number> {
  const state = invocation.flag('candidate') ? 'candidate' : 'active'
  const text = readUserFile(file, 'reference values').toString('utf8')
  const keyFile = invocation.string('release-key')
  if (keyFile === undefined) {
    const id = await client.putReference(text, state)
    invocation.out.result({ id, state }, `${id}  ${state}`)
    return 0
  }
  const key = readReleaseKey(readUserFile(keyFile, 'release key').toString('utf8'))
  const { release, documents } = parseReleaseManifest(text, key)
  const ids: string[] = []
  for (const document of documents) ids.push(await client.putReference(document, state))
  invocation.out.result({ release, ids, state }, ids.map((id) => `${id}  ${state}  (release ${release})`).join('\n'))
  return 0
}

/** Exit code 1 when there is a difference. */
async function diff(
  invocation: Invocation,
  client: VerifierAdminClient,
  file: string,
  name: string | undefined,
): Promise<number> {
  const text = readUserFile(file, 'reference values').toString('utf8')
  const id = name ?? parseReferenceDocument(text).id
  const registered = (await client.listReferences()).find((each) => each.id === id)
  if (registered === undefined) {
    throw new UsageError('ERR_REFERENCE_NOT_FOUND', `there is no reference value ${id}`, {
      hint: '`caisson verifier reference-value list` prints those that there are.',
    })
  }
  const differences = diffReferences(registered.document, JSON.parse(text))
  const lines = differences.map(
    ({ member, before = 'nothing', after = 'nothing' }) => `${member}: ${before} → ${after}`,
  )
  invocation.out.result(differences, lines.length > 0 ? lines.join('\n') : `${id} is registered as it is in ${file}`)
  return lines.length > 0 ? 1 : 0
}

function usage(): UsageError {
  return new UsageError(
    'ERR_USAGE',
    'expected `register FILE`, `diff FILE [ID]`, `list`, `promote ID`, `retire ID` or `remove ID`',
    { hint: 'See `caisson verifier reference-value --help`.' },
  )
}
