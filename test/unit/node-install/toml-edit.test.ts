import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { editToml, type Setting, stripEdits, valueAt } from '#host-shim/install/toml-edit'
import { parseStatements, parseToml } from '#host-shim/install/toml-lines'
import { CaissonError } from '#protocol/errors'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const OPERATORS = `# the operator's file
version = 2
imports = [
  "/etc/more/*.toml", # two of them
  "/etc/most/*.toml",
]

[plugins."io.containerd.grpc.v1.cri"] # CRI
  sandbox_image = "pause:1"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter   = "overlayfs"  # as ever
  text = """
[not.a.table] # caisson
key = "not a key"
"""
[[streams]]
name = "a"
`

const SETTINGS: readonly Setting[] = [
  { table: [], key: 'imports', value: ['/a.toml'] },
  { table: [], key: 'oom', value: true },
  { table: ['plugins', 'io.containerd.grpc.v1.cri', 'containerd'], key: 'snapshotter', value: 'caisson' },
  { table: ['plugins', 'io.containerd.grpc.v1.cri'], key: 'more', value: 'x "y" \\ # z' },
  { table: ['proxy_plugins', 'caisson'], key: 'type', value: 'snapshot' },
]

test('settings take effect, and every other line of the operator stays as it was', (t) => {
  const edited = editToml(OPERATORS, SETTINGS)
  const document = parseToml(edited)
  for (const { table, key, value } of SETTINGS) t.deepEqual(valueAt(document, [...table, key]), value, key)
  const lines = edited.split('\n')
  for (const line of OPERATORS.split('\n')) {
    if (/^imports|^ {2}"|^\]$|snapshotter/.test(line)) continue
    t.true(lines.includes(line), line)
  }
  t.is(stripEdits(edited), OPERATORS)
})

test('an edit is taken back line by line, although the operator changed other lines since', (t) => {
  const edited = editToml(OPERATORS, SETTINGS).replace('"pause:1"', '"pause:2"')
  t.is(stripEdits(edited), OPERATORS.replace('"pause:1"', '"pause:2"'))
})

test('settings that are in effect already change nothing', (t) => {
  t.is(editToml(editToml(OPERATORS, SETTINGS), SETTINGS), editToml(OPERATORS, SETTINGS))
})

test('a last line without an end, CRLF and an empty text come back byte for byte', (t) => {
  for (const text of [
    '',
    '\n',
    'version = 2',
    'a = 1\r\n[b]\r\nc = "d"\r\n',
    '[plugins]',
    '# nothing',
    'oom = false',
  ]) {
    t.is(stripEdits(editToml(text, SETTINGS)), text)
  }
})

test('a file that only a person can change is refused, with what to write', (t) => {
  for (const text of [
    'proxy_plugins = { caisson = { type = "x" } }',
    'proxy_plugins.caisson.type = "x"\n',
    'proxy_plugins = 1',
  ]) {
    const error = t.throws(() => editToml(text, SETTINGS), { instanceOf: CaissonError }, text)
    t.is(error?.code, 'ERR_TOML_EDIT')
  }
  t.is(t.throws(() => editToml('a = ', SETTINGS), { instanceOf: CaissonError })?.code, 'ERR_TOML')
})

test('whatever a file holds, its edit has the settings in effect and comes back byte for byte, or is refused', (t) => {
  edits(t, damaged(OPERATORS))
  edits(t, tomlTexts())
})

test('parseToml and parseStatements answer with every statement, or refuse', (t) => {
  refusesOrKeeps(t, damaged(OPERATORS), (text) => parseToml(text))
  refusesOrKeeps(
    t,
    fc.oneof(damaged(OPERATORS), tomlTexts()),
    (text) => parseStatements(text),
    // Statements follow each other, and between them is nothing but comments and white space.
    (statements, text) => {
      let at = 0
      for (const { start, end } of statements) {
        if (start < at || end <= start || !/^(?:[ \t\r]*(?:#[^\n]*)?(?:\n|$))*$/.test(text.slice(at, start)))
          return false
        at = end
      }
      return true
    },
  )
})

function edits(t: ExecutionContext, texts: fc.Arbitrary<string>): void {
  refusesOrKeeps(
    t,
    texts,
    (text) => editToml(text, SETTINGS),
    (edited, text) =>
      stripEdits(edited) === text &&
      SETTINGS.every(
        ({ table, key, value }) =>
          JSON.stringify(valueAt(parseToml(edited), [...table, key])) === JSON.stringify(value),
      ),
  )
}

/** Valid TOML for the most part, in all its ways of writing. */
function tomlTexts(): fc.Arbitrary<string> {
  const key = fc.oneof(
    fc.constantFrom('a', 'b', 'oom', 'imports', 'snapshotter', '"q \\" = ]"', "'l # ['", 'a.b', 'plugins'),
    fc.stringMatching(/^[a-z]{1,3}$/),
  )
  const value = fc.constantFrom(
    '1',
    '"s # \\" ["',
    "'''\nx\n[t]\n'''''",
    '"""\n\\""" = """',
    '[1, # c\n [2]]',
    '{ x = [ "]" ] }',
    '1979-05-27',
    'true',
  )
  const line = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(key, value).map(([k, v]) => `${k} = ${v}`) },
    key.map((k) => `[${k}]`),
    key.map((k) => `[plugins."io.containerd.grpc.v1.cri".${k}] # x`),
    key.map((k) => `[[${k}]]`),
    fc.constantFrom('# comment', '', '  ', '[proxy_plugins]', '[proxy_plugins.caisson]'),
  )
  return fc
    .tuple(fc.array(line, { maxLength: 6 }), fc.constantFrom('\n', '\r\n'), fc.boolean())
    .map(([lines, end, ended]) => lines.join(end) + (ended ? end : ''))
}
