import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { InstallStore, parseInstallRecord } from '#host-shim/install/install-record'
import { editToml } from '#host-shim/install/toml-edit'
import { apply, operatorsText, type Planned, takeBack } from '#host-shim/install/transaction'
import { CaissonError } from '#protocol/errors'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('what is taken back is byte for byte as it was: contents, modes, links and folders', (t) => {
  const { folder, store, plan } = node(t)
  const before = tree(folder)
  apply(store, plan())
  t.notDeepEqual(tree(folder), before)
  t.true(readFileSync(join(folder, 'etc/config.toml'), 'utf8').includes('ours = true'))
  t.is(lstatSync(join(folder, 'etc/config.toml')).mode & 0o777, 0o640)
  takeBack(store)
  t.deepEqual(tree(folder), before)
})

test('installing twice is installing once', (t) => {
  const { folder, store, plan } = node(t)
  const before = tree(folder)
  apply(store, plan())
  const once = tree(folder)
  apply(store, plan())
  t.deepEqual(tree(folder), once)
  takeBack(store)
  t.deepEqual(tree(folder), before)
})

test('an installation that was cut short before any of its files can be repeated, and be taken back', (t) => {
  const files = node(t)
    .plan()
    .flatMap((each, index) => ('content' in each ? [index] : []))
  t.is(files.length, 3)
  for (const cut of files) {
    for (const repeat of [false, true]) {
      const { folder, store, plan } = node(t)
      const before = tree(folder)
      t.throws(() => apply(store, cutBefore(plan(), cut)), { message: 'cut' })
      if (repeat) {
        apply(store, plan())
        const fresh = node(t)
        apply(fresh.store, fresh.plan())
        t.deepEqual(contents(folder), contents(fresh.folder))
      }
      takeBack(store)
      t.deepEqual(tree(folder), before, `cut before ${cut}`)
    }
  }
})

test('an installation whose taking back was cut short is taken back by the next attempt', (t) => {
  const { folder, store, plan } = node(t)
  mkdirSync(join(folder, 'bin'))
  writeFileSync(join(folder, 'bin/program'), 'an older one')
  const before = tree(folder)
  apply(store, plan())
  // The last file to come back is the first that was written; what it held cannot be read for now.
  const kept = join(folder, 'var/install/before', createHash('sha256').update('an older one').digest('hex'))
  renameSync(kept, `${kept}.away`)
  t.is(t.throws(() => takeBack(store), { instanceOf: CaissonError })?.code, 'ERR_INSTALL_RECORD')
  t.is(readFileSync(join(folder, 'etc/config.toml'), 'utf8'), CONFIG)
  renameSync(`${kept}.away`, kept)
  takeBack(store)
  t.deepEqual(tree(folder), before)
})

test('what an operator changed after the installation stays when it is taken back', (t) => {
  const { folder, store, plan } = node(t)
  apply(store, plan())
  const config = join(folder, 'etc/config.toml')
  writeFileSync(config, `# new line\n${readFileSync(config, 'utf8')}`)
  apply(store, plan())
  t.true(readFileSync(config, 'utf8').includes('ours = true'))
  writeFileSync(join(folder, 'bin/program'), 'patched')
  const saved = takeBack(store)
  t.is(readFileSync(config, 'utf8'), `# new line\n${CONFIG}`)
  t.deepEqual(saved, [join(folder, 'bin/program.caisson-saved')])
  t.false(existsSync(join(folder, 'bin/program')))
})

test('a file that a later version does not install any more is taken back by its installation', (t) => {
  const { folder, store, plan } = node(t)
  apply(store, plan())
  apply(store, plan().slice(1))
  t.false(existsSync(join(folder, 'bin/program')))
})

test('a record of an installation says what lies at absolute paths, or is refused', (t) => {
  const { store, plan, folder } = node(t)
  apply(store, plan())
  const good = readFileSync(join(folder, 'var/install/record.json'), 'utf8')
  t.is(parseInstallRecord(good).state, 'installed')
  refusesOrKeeps(t, damaged(good), parseInstallRecord, ({ entries, directories }) =>
    [...entries.map(({ path }) => path), ...directories].every(
      (path) => path.startsWith('/') && !path.includes('/../'),
    ),
  )
  writeFileSync(join(folder, 'var/install/record.json'), '{}')
  t.is(t.throws(() => takeBack(store), { instanceOf: CaissonError })?.code, 'ERR_INSTALL_RECORD')
})

const CONFIG = 'version = 2\n# mine'

function node(t: ExecutionContext): { folder: string; store: InstallStore; plan: () => Planned[] } {
  // In memory: what is made durable need not reach a disk here.
  const folder = mkdtempSync('/dev/shm/caisson-install-')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'etc'))
  writeFileSync(join(folder, 'etc/config.toml'), CONFIG)
  chmodSync(join(folder, 'etc/config.toml'), 0o640)
  symlinkSync('elsewhere', join(folder, 'etc/link'))
  return {
    folder,
    store: new InstallStore(join(folder, 'var/install')),
    plan: () => {
      const text = operatorsText(join(folder, 'etc/config.toml')) ?? ''
      const config = editToml(text, [{ table: [], key: 'ours', value: true }])
      return [
        { path: join(folder, 'bin/program'), content: Buffer.from('program'), mode: 0o755 },
        { path: join(folder, 'etc/new/deep/link'), target: '../x' },
        { path: join(folder, 'etc/link'), target: 'ours' },
        { path: join(folder, 'etc/new/other'), content: Buffer.from('other'), mode: 0o600 },
        { path: join(folder, 'etc/config.toml'), content: Buffer.from(config), mode: 0o644, edited: true },
      ]
    },
  }
}

/** A plan whose writer dies when it comes to write file number `count`: until then it only wants to know the digest. */
function cutBefore(plan: readonly Planned[], count: number): readonly Planned[] {
  return plan.map((each, index) => {
    if (index !== count || !('content' in each)) return each
    const { content, ...rest } = each
    let reads = 0
    return {
      ...rest,
      get content(): Uint8Array {
        if (++reads > 1) throw new Error('cut')
        return content
      },
    }
  })
}

function tree(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => {
      const path = join(folder, name)
      const status = lstatSync(path)
      const content = status.isSymbolicLink() ? readlinkSync(path) : status.isFile() ? readFileSync(path, 'latin1') : ''
      return `${name} ${status.mode.toString(8)} ${content}`
    })
}

/** All but the record, whose paths differ from folder to folder. */
function contents(folder: string): readonly string[] {
  return tree(folder).filter((line) => !line.startsWith('var/install'))
}
