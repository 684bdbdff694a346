/** What a build tells while it runs. Lines are for people; nothing depends on them. */
export interface BuildProgress {
  readonly step: 'kernel' | 'packages' | 'native' | 'agent' | 'root' | 'guest'
  readonly text: string
  /** Percent of the step, where it can be estimated. */
  readonly percent?: number
  /** True for what the builder must know: a pin that was replaced, a cache entry that was damaged. */
  readonly warning?: boolean
}

export type OnProgress = (progress: BuildProgress) => void
