/**
 * Brainpool curves and secp256k1 for OpenPGP.js: it verifies them with Node's own cryptography, but asks a package that it
 * does not bring along (`eckey-utils`) to write the public key as SubjectPublicKeyInfo (RFC 5480). This is that package,
 * as far as it is asked: a header for each curve, before the uncompressed point.
 */
import { registerHooks } from 'node:module'

/** OpenSSL's name of the curve → everything before the point, hexadecimal. */
const HEADERS: Readonly<Record<string, string>> = {
  secp256k1: '3056301006072a8648ce3d020106052b8104000a034200',
  brainpoolP256r1: '305a301406072a8648ce3d020106092b2403030208010107034200',
  brainpoolP384r1: '307a301406072a8648ce3d020106092b240303020801010b036200',
  brainpoolP512r1: '30819b301406072a8648ce3d020106092b240303020801010d03818200',
}
const NAME = 'eckey-utils'
const ADDRESS = 'caisson:eckey-utils'
const SOURCE = `const headers = ${JSON.stringify(HEADERS)}
exports.generateDer = ({ curveName, publicKey }) => {
  if (!Object.hasOwn(headers, curveName)) throw new Error('no such curve')
  return { publicKey: Buffer.concat([Buffer.from(headers[curveName], 'hex'), publicKey]) }
}`

let provided = false

/** Once for the process; nothing else asks for a package of this name. */
export function provideOpenPgpCurves(): void {
  if (provided) return
  provided = true
  registerHooks({
    resolve: (name, context, next) =>
      name === NAME ? { url: ADDRESS, format: 'commonjs', shortCircuit: true } : next(name, context),
    load: (url, context, next) =>
      url === ADDRESS ? { format: 'commonjs', source: SOURCE, shortCircuit: true } : next(url, context),
  })
}
