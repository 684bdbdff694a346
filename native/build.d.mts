export interface NativeBuildProgress {
  readonly target: string
  readonly state: 'fresh' | 'compiling' | 'built'
  readonly durationMs?: number
}

/** A part could not be built: `ERR_COMPILER_MISSING`, `ERR_NATIVE_HEADERS`, `ERR_NATIVE_COMPILE`, `ERR_NATIVE_TARGET`. */
export class NativeBuildError extends Error {
  readonly code: string
  readonly hint: string | undefined
}

/** Path of a target's output, whether it exists or not. */
export function nativeOutput(name: string): string

/** Brings targets up to date (all that are not on demand, or those in `only`); answers with output paths by target name. */
export function buildNative(options?: {
  readonly only?: readonly string[]
  readonly onProgress?: (progress: NativeBuildProgress) => void
}): Promise<Readonly<Record<string, string>>>
