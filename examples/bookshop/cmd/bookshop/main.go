// Command bookshop runs the example's services alone, or those instances that its
// arguments name (books-v1), for a Weir that runs elsewhere: declare it with `weir
// apply -f examples/bookshop/bookshop.yaml`, and run a sidecar beside each.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/weirmesh/weir/examples/bookshop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bookshop.Run(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "bookshop:", err)
		os.Exit(1)
	}
}
