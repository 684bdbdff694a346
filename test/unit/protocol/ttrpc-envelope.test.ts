import test from 'ava'
import fc from 'fast-check'
import { MalformedError } from '#protocol/errors'
import { encodeRequest, encodeResponse, parseRequest, parseResponse } from '#protocol/ttrpc/envelope'

const request = {
  service: 'a.b.Service',
  method: 'Do',
  payload: Uint8Array.of(1, 2, 3),
  timeoutNano: 5_000_000_000n,
  metadata: new Map([['containerd-namespace-ttrpc', ['k8s.io', 'second']]]),
}

test('a request is read as it was written', (t) => {
  t.deepEqual(parseRequest(encodeRequest(request)), request)
})

test('metadata keys are written and compared in lower case', (t) => {
  const bytes = encodeRequest({ ...request, metadata: new Map([['X-Key', ['V']]]) })
  t.deepEqual(parseRequest(bytes).metadata, new Map([['x-key', ['V']]]))
})

test('a negative timeout keeps its sign', (t) => {
  t.is(parseRequest(encodeRequest({ ...request, timeoutNano: -1n })).timeoutNano, -1n)
})

test('a response without status and one with code 0 are both OK', (t) => {
  t.deepEqual(parseResponse(Uint8Array.of(0x12, 1, 9)).status, { code: 0, message: '' })
  t.deepEqual(parseResponse(Uint8Array.of(0x0a, 2, 8, 0, 0x12, 1, 9)), {
    status: { code: 0, message: '' },
    payload: Uint8Array.of(9),
  })
})

test('a failure carries its code and message', (t) => {
  const response = { status: { code: 5, message: 'container a: not found' }, payload: new Uint8Array(0) }
  t.deepEqual(parseResponse(encodeResponse(response)), response)
})

test('unknown fields are skipped', (t) => {
  const unknown = Uint8Array.of(0x7a, 2, 1, 1, 0x78, 5)
  t.deepEqual(parseRequest(new Uint8Array(Buffer.concat([unknown, encodeRequest(request)]))), request)
})

test('an envelope cut at any byte is malformed or shorter, never something else', (t) => {
  const bytes = encodeRequest(request)
  for (let length = 0; length < bytes.byteLength; length += 1) {
    try {
      parseRequest(bytes.subarray(0, length))
    } catch (error) {
      t.true(error instanceof MalformedError && error.code === 'ERR_RPC_MALFORMED')
    }
  }
})

test('too many metadata entries and too long names are malformed', (t) => {
  const many = new Map(Array.from({ length: 65 }, (_, index) => [`k${index}`, ['v']]))
  t.throws(() => parseRequest(encodeRequest({ ...request, metadata: many })), { code: 'ERR_RPC_MALFORMED' })
  t.throws(() => parseRequest(encodeRequest({ ...request, service: 'x'.repeat(257) })), { code: 'ERR_RPC_MALFORMED' })
})

test('deeply nested unknown groups are malformed, not a stack overflow', (t) => {
  t.throws(() => parseRequest(new Uint8Array(100_000).fill(0x7b)), { code: 'ERR_RPC_MALFORMED' })
})

test('any bytes are an envelope or malformed', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const parse of [parseRequest, parseResponse]) {
        try {
          parse(bytes)
        } catch (error) {
          t.true(error instanceof MalformedError)
        }
      }
    }),
    { numRuns: 2000 },
  )
})
