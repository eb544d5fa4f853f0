package measure

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// Main is the main function of a comparison: what it runs gets the arguments, and a
// context that ends when the comparison is told to.
func Main(name string, run func(context.Context, []string) error) {
	// A child is told of our end by its parent thread's: this one stays.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
