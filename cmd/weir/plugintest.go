package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/policy/plugintest"
	"github.com/weirmesh/weir/resource/manifest"
)

// pluginLimits are the flags for what a plugin may use.
type pluginLimits struct {
	memory string
	fuel   uint64
}

func (l *pluginLimits) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.memory, "memory", "", "linear memory that one VM may have, such as 32Mi (16Mi)")
	cmd.Flags().Uint64Var(&l.fuel, "fuel", 0, "fuel that one callback may burn (10000000)")
}

func (l *pluginLimits) options() (plugintest.Options, error) {
	bytes, err := parseBytes(l.memory)
	if err != nil {
		return plugintest.Options{}, usagef("--memory %s", err)
	}
	return plugintest.Options{MemoryBytes: bytes, Fuel: l.fuel, CacheDir: compiledDir()}, nil
}

// keptCompiled is how long compiled modules are kept.
const keptCompiled = 7 * 24 * time.Hour

// compiledDir is where compiled modules are kept from one run to the next, so that
// the second takes no seconds: the user's own, since what is in it is executed.
// Empty where there is no such place.
func compiledDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir := filepath.Join(base, "weir", "compiled")
	if err := os.MkdirAll(dir, 0o700); err != nil || os.Chmod(dir, 0o700) != nil {
		return ""
	}
	_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && time.Since(info.ModTime()) > keptCompiled {
			_ = os.Remove(file)
		}
		return nil
	})
	return dir
}

// errRefused ends an inspection of a module that push would refuse, and
// errCasesFailed a test; both have said why.
var (
	errRefused     = fmt.Errorf("the module is refused: %w", errTold)
	errCasesFailed = fmt.Errorf("cases failed: %w", errTold)
)

func newPluginInspectCommand() *cobra.Command {
	var limits pluginLimits
	cmd := &cobra.Command{
		Use:   "inspect FILE.wasm",
		Short: "Say what a module is, and whether push would take it",
		Long: `Inspect reads any module, whoever made it: which ABI it speaks, what it
exports and imports and which of that this program supports, its memory, and what
made it. It exits with 1 when push would refuse it. No server is needed.`,
		Example: "  weir plugin inspect stamp.wasm\n  weir plugin inspect stamp.wasm -o json",
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	limits.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		module, err := readModule(args[0])
		if err != nil {
			return err
		}
		options, err := limits.options()
		if err != nil {
			return err
		}
		about, err := plugintest.Inspect(cmd.Context(), module, options)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case output.forPrograms():
			err = writeValue(out, *output, &about)
		case *output == formatName:
			_, err = fmt.Fprintln(out, about.Digest)
		default:
			err = writeInspection(out, args[0], &about, *output == formatWide)
		}
		if err == nil && !about.Accepted {
			err = errRefused
		}
		return err
	}
	return cmd
}

func newPluginTestCommand() *cobra.Command {
	var limits pluginLimits
	var update, verbose bool
	cmd := &cobra.Command{
		Use:   "test FILE.wasm CASES.yaml…",
		Short: "Run a module's cases in the engine that proxies have",
		Long: `Test runs each case of the files in a sandbox of its own: the request that it
describes, the answer of the service, and what the plugin is to make of them. The
module may come from any SDK. With --update the fuel that the cases burned is
written into their files. No server is needed. It exits with 1 when a case fails.`,
		Example: "  weir plugin test stamp.wasm cases.yaml\n  weir plugin test stamp.wasm cases.yaml --update",
		Args:    cobra.MinimumNArgs(2),
	}
	output := outputFlag(cmd)
	limits.add(cmd)
	cmd.Flags().BoolVar(&update, "update", false, "write the fuel that the cases burned into their files")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what every case logged, also debug lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := readCases(args[1:])
		if err != nil {
			return err
		}
		t := pluginTest{cmd: cmd, format: *output, update: update, verbose: verbose}
		change := func(o *plugintest.Options) {
			if verbose {
				o.LogLevel = slog.LevelDebug - 4
			}
		}
		return withRunner(args[0], limits, change, func(r *plugintest.Runner) error { return t.run(r, args[0], files) })
	}
	return cmd
}

// caseFile is a file of cases.
type caseFile struct {
	name  string
	text  []byte
	cases []plugintest.Case
}

// readCases reads all files, so that all that is wrong with them is told at once.
func readCases(names []string) (files []caseFile, err error) {
	var problems manifest.Problems
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read cases: %w", err)
		}
		cases, err := plugintest.Parse(name, text)
		var wrong manifest.Problems
		if errors.As(err, &wrong) {
			problems = append(problems, wrong...)
		}
		files = append(files, caseFile{name, text, cases})
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return files, nil
}

func withRunner(file string, limits pluginLimits, change func(*plugintest.Options), do func(*plugintest.Runner) error) error {
	module, err := readModule(file)
	if err != nil {
		return err
	}
	options, err := limits.options()
	if err != nil {
		return err
	}
	change(&options)
	r, err := plugintest.NewRunner(module, options)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

// pluginTest is one run of the verb.
type pluginTest struct {
	cmd             *cobra.Command
	format          format
	update, verbose bool

	results []plugintest.Result
	failed  int
}

func (t *pluginTest) run(r *plugintest.Runner, module string, files []caseFile) error {
	ctx := t.cmd.Context()
	for _, f := range files {
		first := len(t.results)
		for _, c := range f.cases {
			result, err := r.Run(ctx, c)
			if err != nil {
				return err
			}
			t.results = append(t.results, result)
		}
		if t.update {
			if err := t.write(f, t.results[first:]); err != nil {
				return err
			}
		}
		for i := first; i < len(t.results); i++ {
			t.show(&t.results[i])
		}
	}
	return t.finish(module)
}

// write puts golden fuel into a file, and what it did not hold before holds now.
func (t *pluginTest) write(f caseFile, results []plugintest.Result) error {
	text, changed, err := plugintest.Update(f.text, results)
	if err != nil {
		return fmt.Errorf("update cases: %w", err)
	}
	if changed == 0 {
		return nil
	}
	if err := replaceFile(f.name, text); err != nil {
		return fmt.Errorf("update cases: %w", err)
	}
	fmt.Fprintf(t.cmd.ErrOrStderr(), "%s: fuel of %d cases written\n", f.name, changed)
	return nil
}

// replaceFile writes a file as a whole or not at all.
func replaceFile(name string, text []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	beside := name + ".new"
	if err := os.WriteFile(beside, text, info.Mode().Perm()); err != nil {
		return err
	}
	return errors.Join(os.Rename(beside, name))
}

func (t *pluginTest) show(r *plugintest.Result) {
	if t.update {
		r.Accept()
	}
	if !r.OK {
		t.failed++
	}
	out := t.cmd.OutOrStdout()
	switch {
	case t.format.forPrograms():
	case t.format == formatName:
		if !r.OK {
			fmt.Fprintf(out, "%s:%d\n", r.File, r.Line)
		}
	default:
		writeResult(out, r, t.verbose || t.format == formatWide)
	}
}

func (t *pluginTest) finish(module string) error {
	out := t.cmd.OutOrStdout()
	switch {
	case t.format.forPrograms():
		answer := map[string]any{"module": module, "failed": t.failed, "cases": t.results}
		if err := writeValue(out, t.format, answer); err != nil {
			return err
		}
	case t.format == formatName:
	case t.failed > 0:
		fmt.Fprintf(out, "FAIL  %s: %d of %d cases failed\n", module, t.failed, len(t.results))
	default:
		fmt.Fprintf(out, "ok    %s: %d cases\n", module, len(t.results))
	}
	if t.failed > 0 {
		return errCasesFailed
	}
	return nil
}

func newPluginBenchCommand() *cobra.Command {
	var limits pluginLimits
	cmd := &cobra.Command{
		Use:   "bench FILE.wasm [CASES.yaml]",
		Short: "Measure what a module costs",
		Long: `Bench measures the exchange of each case, or a plain GET without a
configuration: time and fuel of one request, and of the module how long it takes
to compile it and to start a VM, and a VM's memory. Times are this machine's, the
median of rounds after a warm-up, beyond what the exchange takes without the
plugin. Fuel is the same everywhere.`,
		Example: "  weir plugin bench stamp.wasm\n  weir plugin bench stamp.wasm cases.yaml",
		Args:    cobra.RangeArgs(1, 2),
	}
	output := outputFlag(cmd)
	limits.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cases, err := benchCases(args[1:])
		if err != nil {
			return err
		}
		// What was compiled before would not be measured.
		change := func(o *plugintest.Options) { o.CacheDir = "" }
		return withRunner(args[0], limits, change, func(r *plugintest.Runner) error {
			return showBench(cmd.Context(), cmd, *output, r, cases)
		})
	}
	return cmd
}

// benchCases leaves out the cases that want the plugin to fail.
func benchCases(names []string) (cases []plugintest.Case, err error) {
	if len(names) == 0 {
		return plugintest.Parse("", []byte("cases: [{name: GET /}]"))
	}
	files, err := readCases(names)
	if err != nil {
		return nil, err
	}
	for _, c := range files[0].cases {
		if !c.Expect.Failing() {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("measure plugin: %s has no case in which it does not fail", names[0])
	}
	return cases, nil
}

func showBench(ctx context.Context, cmd *cobra.Command, f format, r *plugintest.Runner, cases []plugintest.Case) error {
	m, err := r.Bench(ctx, cases)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case f.forPrograms():
		return writeValue(out, f, &m)
	case f == formatName:
		for _, c := range m.Cases {
			fmt.Fprintln(out, c.Name)
		}
		return nil
	}
	return writeMeasurement(out, &m)
}
