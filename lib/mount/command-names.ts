/** The commands of the table in bin, for a source that was meant to be one. */
export const COMMAND_NAMES: readonly string[] = ['mount', 'umount', 'status', 'stats', 'replace', 'trace', 'probe', 'relay', 'doctor', 'install', 'uninstall', 'completion', 'help']
