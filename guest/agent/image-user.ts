/**
 * Which user a container runs as, by the image's own /etc/passwd and /etc/group (passwd(5), group(5)). The files are the
 * image's: bounded, read without following links out of its root, and believed for names only.
 */
import { CaissonError } from '#protocol/errors'

export interface ImageUser {
  readonly uid: number
  readonly gid: number
  /** Without `gid`. */
  readonly additionalGids: readonly number[]
  readonly home: string
}

const MAX_ID = 0xfffffffe

/**
 * @param spec "", "user", "uid", "user:group", "uid:gid" (OCI image-spec config.md)
 * @param passwd text of the file, empty when the image has none
 * @throws CaissonError ERR_IMAGE_USER when a name is unknown
 */
export function resolveUser(spec: string, passwd: string, group: string): ImageUser {
  const [userPart = '', groupPart] = spec === '' ? ['0'] : spec.split(':', 2)
  const users = parsePasswd(passwd)
  const id = numericId(userPart)
  const user = users.find((entry) => (id === undefined ? entry.name === userPart : entry.uid === id))
  const uid = id ?? user?.uid
  if (uid === undefined) throw unknown('user', userPart)
  const groups = parseGroup(group)
  const gid = groupPart === undefined ? (user?.gid ?? 0) : groupId(groupPart, groups)
  const member = user?.name
  const additional = groups.filter((entry) => member !== undefined && entry.members.includes(member))
  return {
    uid,
    gid,
    // An explicit group replaces the user's own; being listed elsewhere still counts, as it does at a login.
    additionalGids: [...new Set(additional.map((entry) => entry.gid))].filter((extra) => extra !== gid),
    home: user?.home === undefined || user.home === '' ? '/' : user.home,
  }
}

function groupId(part: string, groups: readonly Group[]): number {
  const gid = numericId(part) ?? groups.find((entry) => entry.name === part)?.gid
  if (gid === undefined) throw unknown('group', part)
  return gid
}

interface User {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

interface Group {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

/** Lines that are no entries are skipped, as the C library does. */
function parsePasswd(text: string): readonly User[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', , uidText = '', gidText = '', , home = ''] = line.split(':')
    const uid = numericId(uidText)
    const gid = numericId(gidText)
    return name === '' || uid === undefined || gid === undefined ? [] : [{ name, uid, gid, home }]
  })
}

function parseGroup(text: string): readonly Group[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', , gidText = '', members = ''] = line.split(':')
    const gid = numericId(gidText)
    return name === '' || gid === undefined ? [] : [{ name, gid, members: members.split(',') }]
  })
}

function numericId(text: string): number | undefined {
  if (!/^[0-9]{1,10}$/.test(text)) return undefined
  const id = Number(text)
  return id <= MAX_ID ? id : undefined
}

function unknown(what: string, name: string): CaissonError {
  return new CaissonError('ERR_IMAGE_USER', `the image has no ${what} ${JSON.stringify(name.slice(0, 100))}`, {
    hint: `Name an existing ${what} or a number in the image or the policy.`,
  })
}
