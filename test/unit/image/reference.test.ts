import test from 'ava'
import fc from 'fast-check'
import { formatReference, parseReference, repositoryName, withDigest, withTag } from '#protocol/oci/reference'

const HEX = 'ab'.repeat(32)

test('names are expanded as registries and policies know them', (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['nginx', 'docker.io/library/nginx'],
    ['nginx:1', 'docker.io/library/nginx:1'],
    ['team/app', 'docker.io/team/app'],
    ['docker.io/nginx', 'docker.io/library/nginx'],
    ['index.docker.io/nginx', 'docker.io/library/nginx'],
    ['localhost/app', 'localhost/app'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['registry.example/a/b/c', 'registry.example/a/b/c'],
    ['REGISTRY.example/a', 'registry.example/a'],
    ['host:5000/app', 'host:5000/app'],
    ['[::1]:5000/app', '[::1]:5000/app'],
    [`app@sha256:${HEX}`, `docker.io/library/app@sha256:${HEX}`],
    [`r.example/app:1@sha256:${HEX}`, `r.example/app:1@sha256:${HEX}`],
    [`r.example/app@sha512:${HEX}${HEX}`, `r.example/app@sha512:${HEX}${HEX}`],
    ['a.b/c__d/e-f/g---h/i.j', 'a.b/c__d/e-f/g---h/i.j'],
  ]
  for (const [text, full] of cases) t.is(formatReference(parseReference(text)), full, text)
})

test('a tag is assumed only where one is asked for, and never beside a digest', (t) => {
  t.is(parseReference('a.b/c').tag, undefined)
  t.is(parseReference('a.b/c', 'latest').tag, 'latest')
  t.is(parseReference('a.b/c:2', 'latest').tag, '2')
  t.is(parseReference(`a.b/c@sha256:${HEX}`, 'latest').tag, undefined)
})

test('a reference keeps its repository when it gets another version', (t) => {
  const reference = parseReference('a.b:1/c/d:2')
  t.is(repositoryName(reference), 'a.b:1/c/d')
  t.is(formatReference(withDigest(reference, `sha256:${HEX}`)), `a.b:1/c/d@sha256:${HEX}`)
  t.is(formatReference(withTag(reference, '3')), 'a.b:1/c/d:3')
})

test('what is no reference is refused', (t) => {
  const refused = [
    '',
    '/',
    'a.b/',
    'A/b',
    'team/App',
    'a.b/c:',
    'a.b/c:-x',
    `a.b/c:${'x'.repeat(129)}`,
    'a.b/c@',
    'a.b/c@sha256:abc',
    `a.b/c@sha256:${HEX.toUpperCase()}`,
    `a.b/c@md5:${'a'.repeat(32)}`,
    `a.b/c@sha256:${HEX}@sha256:${HEX}`,
    'a.b/c/../d',
    'a.b//c',
    'a.b/c?x',
    'a.b/c d',
    'a.b/c\n',
    'a.b:70000/c',
    'a.b:0/c',
    'a..b/c',
    '-a.b/c',
    'https://a.b/c',
    'user@a.b/c',
    `a.b/${'c'.repeat(300)}`,
    `a.b/${'c/'.repeat(3000)}c`,
  ]
  for (const text of refused) {
    t.throws(() => parseReference(text), { code: 'ERR_IMAGE_REFERENCE' }, JSON.stringify(text.slice(0, 60)))
  }
})

test('whatever is accepted reads back as itself, and nothing else is thrown than ERR_IMAGE_REFERENCE', (t) => {
  const part = fc.stringMatching(/^[a-zA-Z0-9._:@/[\]-]{0,40}$/)
  fc.assert(
    fc.property(fc.oneof(part, fc.string()), (text) => {
      let full: string
      try {
        full = formatReference(parseReference(text))
      } catch (error) {
        t.is((error as { code?: string }).code, 'ERR_IMAGE_REFERENCE')
        return
      }
      t.is(formatReference(parseReference(full)), full)
    }),
  )
  t.pass()
})
