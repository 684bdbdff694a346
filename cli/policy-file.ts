/** A workload policy as its author keeps it: in one file, or in several that share parts. */
import { dirname, resolve } from 'node:path'
import { resolveIncludes } from '#policies/include'
import { readUserFile } from './files.ts'

/** The one document that a guest gets. Throws `MalformedError` ERR_POLICY_MALFORMED, `UsageError` ERR_FILE_UNREADABLE. */
export function readPolicyFile(path: string): string {
  return resolveIncludes(readUserFile(path, 'policy').toString('utf8'), (name) =>
    readUserFile(resolve(dirname(path), name), 'included file').toString('utf8'),
  )
}
