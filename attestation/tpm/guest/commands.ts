/** The commands that attestation needs (TPM 2.0 part 3), typed. */
import type { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { hashAlgorithmId, TPM_ALG } from '../parse/algorithms.ts'
import { sized, u16, u32 } from '../parse/marshal.ts'
import { type BankSelection, encodePcrSelections, readPcrSelections } from '../parse/pcr-selection.ts'
import { encodePublicArea, type PublicArea } from '../parse/public-area.ts'
import { EMPTY_PASSWORD, runCommand, type TpmDevice } from './device.ts'

export const TPM_RH_ENDORSEMENT = 0x4000_000b
const TPM_RH_NULL = 0x4000_0007
const SESSION_POLICY = 1
/** TPM_PT_NV_BUFFER_MAX of every TPM seen; smaller chunks are always allowed. */
const NV_CHUNK = 512
const MAX_NV_BYTES = 4096

/** A primary key of the endorsement hierarchy with an empty password. */
export async function createPrimary(
  device: TpmDevice,
  template: PublicArea,
): Promise<{ handle: number; publicArea: Uint8Array; name: Uint8Array }> {
  const { handle, parameters } = await runCommand(device, {
    name: 'TPM2_CreatePrimary',
    code: 0x131,
    handles: [TPM_RH_ENDORSEMENT],
    authorizations: [EMPTY_PASSWORD],
    // inSensitive {userAuth, data}, inPublic, outsideInfo, creationPCR
    parameters: concatBytes(sized(sized(), sized()), sized(encodePublicArea(template)), sized(), u32(0)),
    outHandles: 1,
  })
  const publicArea = buffer(parameters)
  buffer(parameters) // creationData
  buffer(parameters) // creationHash
  parameters.skip(2 + 4) // ticket: tag, hierarchy
  buffer(parameters)
  const name = buffer(parameters)
  parameters.end()
  return { handle, publicArea, name }
}

export async function flushContext(device: TpmDevice, handle: number): Promise<void> {
  await plain(device, { name: 'TPM2_FlushContext', code: 0x165, parameters: u32(handle) })
}

/** @param nonce 16 bytes or more, up to the digest's length */
export async function startPolicySession(device: TpmDevice, hash: HashAlgorithm, nonce: Uint8Array): Promise<number> {
  const { handle, parameters } = await runCommand(device, {
    name: 'TPM2_StartAuthSession',
    code: 0x176,
    handles: [TPM_RH_NULL, TPM_RH_NULL],
    authorizations: [],
    parameters: concatBytes(
      sized(nonce),
      sized(),
      Uint8Array.of(SESSION_POLICY),
      u16(TPM_ALG.NULL),
      u16(hashAlgorithmId(hash)),
    ),
    outHandles: 1,
  })
  buffer(parameters)
  parameters.end()
  return handle
}

/** PolicySecret with the endorsement hierarchy's empty password: PolicyA. */
export async function policySecret(device: TpmDevice, session: number): Promise<void> {
  await runCommand(device, {
    name: 'TPM2_PolicySecret',
    code: 0x151,
    handles: [TPM_RH_ENDORSEMENT, session],
    authorizations: [EMPTY_PASSWORD],
    // nonceTPM, cpHashA, policyRef, expiration
    parameters: concatBytes(sized(), sized(), sized(), u32(0)),
    outHandles: 0,
  })
}

export async function policyOr(device: TpmDevice, session: number, digests: readonly Uint8Array[]): Promise<void> {
  await runCommand(device, {
    name: 'TPM2_PolicyOR',
    code: 0x171,
    handles: [session],
    authorizations: [],
    parameters: concatBytes(u32(digests.length), ...digests.map((digest) => sized(digest))),
    outHandles: 0,
  })
}

/** @returns the credential's secret */
export async function activateCredential(
  device: TpmDevice,
  input: {
    readonly ak: number
    readonly ek: number
    readonly policySession: number
    readonly credentialBlob: Uint8Array
    readonly encryptedSecret: Uint8Array
  },
): Promise<Uint8Array> {
  const { parameters } = await runCommand(device, {
    name: 'TPM2_ActivateCredential',
    code: 0x147,
    handles: [input.ak, input.ek],
    authorizations: [EMPTY_PASSWORD, { session: input.policySession }],
    parameters: concatBytes(sized(input.credentialBlob), sized(input.encryptedSecret)),
    outHandles: 0,
  })
  const secret = buffer(parameters)
  parameters.end()
  return secret
}

/** @returns TPMS_ATTEST and TPMT_SIGNATURE */
export async function quote(
  device: TpmDevice,
  input: { readonly ak: number; readonly qualifyingData: Uint8Array; readonly selection: BankSelection },
): Promise<{ message: Uint8Array; signature: Uint8Array }> {
  const { parameters } = await runCommand(device, {
    name: 'TPM2_Quote',
    code: 0x158,
    handles: [input.ak],
    authorizations: [EMPTY_PASSWORD],
    // TPM_ALG_NULL: the key's own scheme
    parameters: concatBytes(sized(input.qualifyingData), u16(TPM_ALG.NULL), encodePcrSelections([input.selection])),
    outHandles: 0,
  })
  const message = buffer(parameters)
  return { message, signature: parameters.bytes(parameters.remaining) }
}

/** At most 8 PCRs are answered at a time: the rest is for the caller to ask again. */
export async function readSomePcrs(
  device: TpmDevice,
  selection: BankSelection,
): Promise<{ updateCounter: number; pcrs: ReadonlyMap<number, Uint8Array> }> {
  const parameters = await plain(device, {
    name: 'TPM2_PCR_Read',
    code: 0x17e,
    parameters: encodePcrSelections([selection]),
  })
  const updateCounter = parameters.u32be()
  const served = readPcrSelections(parameters).flatMap(({ bank, pcrs }) => (bank === selection.bank ? pcrs : []))
  const count = parameters.u32be()
  if (count !== served.length) {
    throw new MalformedError('ERR_TPM_RESPONSE_FORMAT', `TPM2_PCR_Read: ${count} values for ${served.length} PCRs`)
  }
  const pcrs = new Map(served.map((pcr) => [pcr, buffer(parameters)]))
  parameters.end()
  return { updateCounter, pcrs }
}

/** Extends one PCR of one bank. With a bank that is not active the TPM does nothing and reports success. */
export async function extendPcr(
  device: TpmDevice,
  pcr: number,
  measurement: { readonly bank: HashAlgorithm; readonly digest: Uint8Array },
): Promise<void> {
  await runCommand(device, {
    name: 'TPM2_PCR_Extend',
    code: 0x182,
    handles: [pcr],
    authorizations: [EMPTY_PASSWORD],
    parameters: concatBytes(u32(1), u16(hashAlgorithmId(measurement.bank)), measurement.digest),
    outHandles: 0,
  })
}

/** Content of an NV index that may be read with the index’s own empty password. */
export async function readNvIndex(device: TpmDevice, index: number): Promise<Uint8Array> {
  const size = await nvIndexBytes(device, index)
  const chunks: Uint8Array[] = []
  for (let offset = 0; offset < size; offset += NV_CHUNK) {
    const { parameters } = await runCommand(device, {
      name: 'TPM2_NV_Read',
      code: 0x14e,
      handles: [index, index],
      authorizations: [EMPTY_PASSWORD],
      parameters: concatBytes(u16(Math.min(NV_CHUNK, size - offset)), u16(offset)),
      outHandles: 0,
    })
    chunks.push(buffer(parameters))
    parameters.end()
  }
  return concatBytes(...chunks)
}

async function nvIndexBytes(device: TpmDevice, index: number): Promise<number> {
  const parameters = await plain(device, { name: 'TPM2_NV_ReadPublic', code: 0x169, handles: [index] })
  parameters.skip(2 + 4 + 2 + 4) // size, index, nameAlg, attributes
  buffer(parameters) // authPolicy
  const size = parameters.u16be()
  if (size > MAX_NV_BYTES) {
    throw new MalformedError('ERR_TPM_RESPONSE_FORMAT', `NV index 0x${index.toString(16)} of ${size} bytes`)
  }
  return size
}

async function plain(
  device: TpmDevice,
  command: { name: string; code: number; handles?: readonly number[]; parameters?: Uint8Array },
): Promise<ByteReader> {
  const { parameters } = await runCommand(device, {
    name: command.name,
    code: command.code,
    handles: command.handles ?? [],
    authorizations: [],
    parameters: command.parameters ?? new Uint8Array(),
    outHandles: 0,
  })
  return parameters
}

function buffer(reader: ByteReader): Uint8Array {
  return reader.bytes(reader.u16be())
}
