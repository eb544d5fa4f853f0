package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/resource/manifest"
)

// view is how an answer is printed: names, one a line; a table for people; and
// the answer itself for programs.
type view[M any] struct {
	program func(io.Writer, format, M) error
	names   func(M) []string
	table   func(cmd *cobra.Command, m M, wide bool) error
}

// message is what programs get of an answer that is a message.
func message[M proto.Message](w io.Writer, f format, m M) error { return writeMessage(w, f, m) }

// list is what programs get of an answer that is several messages.
func list[M proto.Message](w io.Writer, f format, all []M) error {
	if f == formatJSON {
		return manifest.WriteMessagesJSON(w, all)
	}
	return manifest.WriteMessagesYAML(w, all)
}

// answered makes a verb that asks one thing and prints the answer.
func answered[M any](c *client, cmd *cobra.Command, v view[M], ask func(*cobra.Command, []string, *session) (M, error)) *cobra.Command {
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		m, err := ask(cmd, args, api)
		if err != nil {
			return err
		}
		return v.write(cmd, *output, m)
	}
	return cmd
}

func (v view[M]) write(cmd *cobra.Command, f format, m M) error {
	switch {
	case f.forPrograms():
		return v.program(cmd.OutOrStdout(), f, m)
	case f == formatName:
		return writeLines(cmd.OutOrStdout(), v.names(m))
	}
	return v.table(cmd, m, f == formatWide)
}

func writeLines(w io.Writer, lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what a verb has done, and to what.
type outcome struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
}

// done makes a verb that does one thing to one name, and says so.
func done(c *client, cmd *cobra.Command, word string, do func(*cobra.Command, []string, *session) (name string, err error)) *cobra.Command {
	return answered(c, cmd, view[outcome]{
		program: func(w io.Writer, f format, o outcome) error {
			if f == formatJSON {
				return json.NewEncoder(w).Encode(o)
			}
			_, err := fmt.Fprintf(w, "name: %q\noutcome: %q\n", o.Name, o.Outcome)
			return err
		},
		names: func(o outcome) []string { return []string{o.Name} },
		table: func(cmd *cobra.Command, o outcome, _ bool) error {
			return writeLines(cmd.OutOrStdout(), []string{o.Name + " " + o.Outcome})
		},
	}, func(cmd *cobra.Command, args []string, api *session) (outcome, error) {
		name, err := do(cmd, args, api)
		return outcome{name, word}, err
	})
}
