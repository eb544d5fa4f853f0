package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weirmesh/weir/resource"
)

// Exit codes.
const (
	exitDone = iota
	exitFailed
	exitUsage
)

// Main runs one command and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	started := false
	root := newRoot(&started)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errTold):
		return exitFailed
	case !started || errors.As(err, &usage):
		fmt.Fprintf(stderr, "weir: %s\n", strings.TrimSpace(err.Error()))
		fmt.Fprintf(stderr, "See: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	tell(stderr, err)
	return exitFailed
}

// usageError is a mistake on the command line that only the verb can see.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

// errTold is wrapped by what ends a verb that has itself said what is wrong.
var errTold = errors.New("see above")

// errDifferent ends a diff that has shown differences.
var errDifferent = fmt.Errorf("there are differences: %w", errTold)

// newRoot puts the verbs together. started becomes true once the command line
// is understood: what fails before is a matter of usage.
func newRoot(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:           "weir",
		Short:         "API management and a service mesh in one program",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		// No verb may have a PersistentPreRun of its own: it would replace this one.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			*started = true
			return nil
		},
	}
	root.SetVersionTemplate("weir {{.Version}}\n")
	c := new(client)
	c.addFlags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run Weir:"}, &cobra.Group{ID: "declare", Title: "Declare and read:"},
		&cobra.Group{ID: "operate", Title: "Operate:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("run", processCommands()...)
	add("declare", newApplyCommand(c), newDiffCommand(c), newGetCommand(c), newDescribeCommand(c), newDeleteCommand(c),
		newWatchCommand(c), newExportCommand(c), newImportCommand(c), newPluginCommand(c), newKeyCommand(c))
	add("operate", newStatusCommand(c), newUsageCommand(c), newClusterCommand(c), newProxyCommand(c), newJoinTokenCommand(c), newLimitsCommand(c))
	root.AddCommand(newVersionCommand())
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil && completion != root {
		completion.Args, completion.RunE = nil, askFurther // cobra's own prints its help, and exits with 0
	}
	return root
}

// fromEnvironment sets each flag that the command line leaves alone from its
// variable: --dry-run from WEIR_DRY_RUN.
func fromEnvironment(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "WEIR_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok || value == "" || f.Name == "help" || f.Name == "version" || failed != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("read %s: %w", name, err)
		}
	})
	return failed
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	parent := &cobra.Command{Use: use, Short: short, RunE: askFurther}
	parent.AddCommand(children...)
	return parent
}

// askFurther is what a command does that only holds others.
func askFurther(cmd *cobra.Command, args []string) error {
	var names []string
	for _, child := range cmd.Commands() {
		names = append(names, child.Name())
	}
	if len(args) == 0 {
		return usagef("say what to do: %s", strings.Join(names, ", "))
	}
	if near := resource.Nearest(args[0], names); near != "" {
		return usagef("unknown command %q for %q; did you mean %q?", args[0], cmd.CommandPath(), near)
	}
	return usagef("unknown command %q for %q; expected %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
}
