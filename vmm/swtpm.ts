/**
 * The software TPM of platform `tpm`: its CA, its manufacture and its process. The host owns all of it, so evidence from
 * it proves nothing against the host; a verifier accepts it only where the tenant chose to trust this CA.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { promisify } from 'node:util'
import { UnavailableError, UsageError } from '#protocol/errors'

const run = promisify(execFile)

const SETUP_TIMEOUT_MS = 60_000
const START_TIMEOUT_MS = 30_000

/** Files of a TPM CA, PEM. The root is what a tenant pins; TPM certificates are signed by the intermediate. */
export interface TpmCa {
  readonly directory: string
  readonly rootPem: string
  readonly intermediatePem: string
}

/**
 * Makes a CA in `directory`, or answers with the one that is there. swtpm makes its CA when it signs for the first time,
 * so this manufactures a TPM and throws it away.
 * @throws UsageError ERR_TPM_CA_DIRECTORY
 * @throws UnavailableError ERR_TPM_SETUP, ERR_PROGRAM_MISSING
 */
export async function createTpmCa(directory: string): Promise<TpmCa> {
  if (!isAbsolute(directory) || /[\s"']/.test(directory)) {
    throw new UsageError('ERR_TPM_CA_DIRECTORY', `${JSON.stringify(directory)} cannot hold a TPM CA`, {
      hint: 'Give an absolute path without spaces and quotes',
    })
  }
  const ca = tpmCa(directory)
  if (await exists(ca.intermediatePem)) return ca
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const sample = join(directory, 'sample')
  await manufactureTpm({ stateDir: sample, ca, name: 'sample' })
  await rm(sample, { recursive: true, force: true })
  return ca
}

function tpmCa(directory: string): TpmCa {
  return {
    directory,
    rootPem: join(directory, 'swtpm-localca-rootca-cert.pem'),
    intermediatePem: join(directory, 'issuercert.pem'),
  }
}

/**
 * Makes a new TPM with an RSA and an ECC endorsement key, their certificates, and the sha256 bank alone.
 * @throws UnavailableError ERR_TPM_SETUP, ERR_PROGRAM_MISSING
 */
export async function manufactureTpm(tpm: {
  /** Absolute; created with mode 0700. */
  readonly stateDir: string
  readonly ca: TpmCa
  /** Common name in the certificates. The CA signs any name, so it means nothing to a verifier. */
  readonly name: string
}): Promise<void> {
  await mkdir(tpm.stateDir, { recursive: true, mode: 0o700 })
  const config = join(tpm.stateDir, 'setup.conf')
  const caConfig = join(tpm.stateDir, 'ca.conf')
  const caOptions = join(tpm.stateDir, 'ca.options')
  const { directory } = tpm.ca
  await writeFile(
    caConfig,
    `statedir = ${directory}\nsigningkey = ${directory}/signkey.pem\nissuercert = ${directory}/issuercert.pem\ncertserial = ${directory}/certserial\n`,
  )
  await writeFile(caOptions, '--platform-manufacturer Caisson\n--platform-version 1\n--platform-model QEMU\n')
  await writeFile(
    config,
    `create_certs_tool = swtpm_localca\ncreate_certs_tool_config = ${caConfig}\ncreate_certs_tool_options = ${caOptions}\nactive_pcr_banks = sha256\n`,
  )
  try {
    await run(
      'swtpm_setup',
      [
        '--tpm2',
        '--tpmstate',
        tpm.stateDir,
        '--config',
        config,
        '--create-ek-cert',
        '--vmid',
        tpm.name,
        '--pcr-banks',
        'sha256',
        '--overwrite',
      ],
      // Its temporary files lie with the state: a kill that reaches it leaves nothing elsewhere.
      { timeout: SETUP_TIMEOUT_MS, maxBuffer: 1024 * 1024, env: { ...process.env, TMPDIR: tpm.stateDir } },
    )
  } catch (cause) {
    throw setupError(cause)
  } finally {
    for (const file of [config, caConfig, caOptions]) await rm(file, { force: true })
  }
}

export interface RunningTpm extends AsyncDisposable {
  readonly pid: number
  /** Control channel for QEMU. */
  readonly socket: string
  readonly exited: Promise<void>
}

/**
 * Starts the TPM; it ends by itself when QEMU's connection is gone.
 * @throws UnavailableError ERR_TPM_START, ERR_PROGRAM_MISSING
 */
export async function startTpm(tpm: { readonly stateDir: string; readonly socket: string }): Promise<RunningTpm> {
  const child = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      '--tpmstate',
      `dir=${tpm.stateDir},mode=0600`,
      '--ctrl',
      `type=unixio,path=${tpm.socket},mode=0600`,
      '--flags',
      'startup-clear',
      // Ends when the VM does, also when nobody is left to stop it.
      '--terminate',
      '--log',
      `file=${join(tpm.stateDir, 'swtpm.log')},level=1,truncate`,
      '--pid',
      `file=${join(tpm.stateDir, 'swtpm.pid')}`,
    ],
    // A group of its own: an interrupt from the terminal is for us, who then end the VM in order.
    { stdio: 'ignore', detached: true },
  )
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  try {
    await once(child, 'spawn')
  } catch (cause) {
    throw missingProgram('swtpm', cause)
  }
  child.on('error', () => undefined)
  const stop = async () => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 2000)
    await exited
    clearTimeout(timer)
  }
  if (!(await appears(tpm.socket, exited))) {
    await stop()
    const log = await readFile(join(tpm.stateDir, 'swtpm.log'), 'utf8').catch(() => '')
    throw new UnavailableError('ERR_TPM_START', `swtpm did not start: ${log.trim().slice(-500)}`, {
      hint: 'Check that the state directory is writable and that no other swtpm uses it',
    })
  }
  return { pid: child.pid ?? 0, socket: tpm.socket, exited, [Symbol.asyncDispose]: stop }
}

/** swtpm has no way to say that it listens, so its socket is looked for. */
async function appears(path: string, exited: Promise<void>): Promise<boolean> {
  let ended = false
  void exited.then(() => {
    ended = true
  })
  for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline && !ended; ) {
    if (await exists(path)) return true
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return false
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

function setupError(cause: unknown): UnavailableError {
  if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return missingProgram('swtpm_setup', cause)
  const output = cause instanceof Error && 'stdout' in cause ? String(cause.stdout) : ''
  const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr) : ''
  return new UnavailableError('ERR_TPM_SETUP', `swtpm_setup failed: ${`${output}${stderr}`.trim().slice(-800)}`, {
    hint: 'Check that the CA directory is writable and complete; remove it to make a new CA',
    cause,
  })
}

function missingProgram(program: string, cause: unknown): UnavailableError {
  return new UnavailableError('ERR_PROGRAM_MISSING', `${program} cannot be started`, {
    hint: 'Install the Debian packages swtpm and swtpm-tools',
    cause,
  })
}
