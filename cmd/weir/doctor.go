package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newDoctorCommand(c *client) *cobra.Command {
	failing := 0
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with the servers; exit 1 when something is",
		Long: `Look for what is wrong, from the server that answers to each of the others, layer
by layer: names, the node port over TCP and UDP, certificates, clocks, disks,
versions, and whether there is a majority. What is found comes with what to do.`,
		Args: cobra.NoArgs,
	}
	cmd = answered(c, cmd, view[*weirv1.DoctorResponse]{program: message[*weirv1.DoctorResponse], names: complaints, table: writeChecks},
		func(cmd *cobra.Command, _ []string, api *session) (*weirv1.DoctorResponse, error) {
			m, err := api.cluster.Doctor(cmd.Context(), &weirv1.DoctorRequest{})
			failing = failures(m)
			return m, err
		})
	look := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := look(cmd, args); err != nil || failing == 0 {
			return err
		}
		return fmt.Errorf("%d of the checks failed", failing)
	}
	return cmd
}

func failures(m *weirv1.DoctorResponse) (n int) {
	for _, check := range m.GetChecks() {
		if check.GetResult() == weirv1.DoctorCheck_FAIL {
			n++
		}
	}
	return n
}

// complaints are the layers that are not well.
func complaints(m *weirv1.DoctorResponse) []string {
	var names []string
	for _, check := range m.GetChecks() {
		if check.GetResult() != weirv1.DoctorCheck_OK {
			names = append(names, check.GetLayer().String()+"/"+check.GetSubject())
		}
	}
	return names
}

func writeChecks(cmd *cobra.Command, m *weirv1.DoctorResponse, _ bool) error {
	var rows [][]string
	for _, check := range m.GetChecks() {
		rows = append(rows, []string{check.GetResult().String(), check.GetLayer().String(), check.GetSubject(), check.GetMessage()})
	}
	if err := writeTable(cmd.OutOrStdout(), []string{"RESULT", "LAYER", "OF", "FOUND BY " + m.GetMember()}, rows); err != nil {
		return err
	}
	return writeAdvice(cmd.OutOrStdout(), m)
}

func writeAdvice(w io.Writer, m *weirv1.DoctorResponse) error {
	for _, check := range m.GetChecks() {
		if check.GetAdvice() == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s of %s: %s\n", check.GetLayer(), check.GetSubject(), check.GetAdvice()); err != nil {
			return err
		}
	}
	return nil
}
