package main

import "github.com/spf13/cobra"

// processCommands are the verbs that run a process. Their context ends with
// SIGINT or SIGTERM.
func processCommands() []*cobra.Command {
	return nil
}
