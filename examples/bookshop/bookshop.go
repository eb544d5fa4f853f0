// Package bookshop is what Weir is shown with: a shop of three small HTTP
// services, two of them in two versions that live side by side.
//
//	books    v1 127.0.0.1:9001   v2 127.0.0.1:9002   the catalogue; v2 knows ISBNs and how many are left
//	reviews  v1 127.0.0.1:9003   v2 127.0.0.1:9004   what readers say; v2 knows stars
//	orders   v1 127.0.0.1:9005                       what was bought, by the consumer that the edge names
//
// Each answers with the header x-served-by, and describes itself at
// /openapi.yaml. [Manifest] declares the edge before them: bookshop.yaml, which
// names the same addresses.
//
// The services answer some members that are nobody's business (what the shop
// pays for a book); taking them out is the demo's work for a policy.
package bookshop

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	_ "embed"
)

// Manifest is bookshop.yaml: the gateway, services, routes and policies.
//
//go:embed bookshop.yaml
var Manifest []byte

//go:embed openapi/*.yaml
var documents embed.FS

// Document is a file that the Manifest names, such as openapi/partners-v1.yaml.
func Document(name string) (string, error) {
	text, err := documents.ReadFile(name)
	return string(text), err
}

// Instance is one running version of a service.
type Instance struct {
	Service, Version, Address string
	Handler                   http.Handler
}

// Instances returns the shop, with nothing ordered yet.
func Instances() []Instance {
	return []Instance{
		instance("books", "v1", "127.0.0.1:9001", booksV1),
		instance("books", "v2", "127.0.0.1:9002", booksV2),
		instance("reviews", "v1", "127.0.0.1:9003", reviewsV1),
		instance("reviews", "v2", "127.0.0.1:9004", reviewsV2),
		instance("orders", "v1", "127.0.0.1:9005", newOrders().routes),
	}
}

func instance(service, version, address string, routes func(*http.ServeMux)) Instance {
	mux := http.NewServeMux()
	routes(mux)
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		http.ServeFileFS(w, r, documents, "openapi/"+service+"-"+version+".yaml")
	})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", service+"-"+version)
		mux.ServeHTTP(w, r)
	})
	return Instance{service, version, address, handler}
}

// Run serves the shop until the context ends. It returns once every service has
// stopped; an error when one cannot be served.
func Run(ctx context.Context, logger *slog.Logger) error {
	return serve(ctx, logger, Instances(), func(address string) (net.Listener, error) {
		return net.Listen("tcp", address)
	})
}

func serve(ctx context.Context, logger *slog.Logger, shop []Instance, listen func(string) (net.Listener, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var listeners []net.Listener
	for _, i := range shop {
		l, err := listen(i.Address)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return fmt.Errorf("open %s %s: %w", i.Service, i.Version, err)
		}
		listeners = append(listeners, l)
	}
	ended := make(chan error, len(shop))
	for n, i := range shop {
		logger.Info("bookshop: serving", "service", i.Service, "version", i.Version, "address", listeners[n].Addr().String())
		go func() { // ended below
			ended <- serveOne(ctx, i, listeners[n])
		}()
	}
	var errs []error
	for range shop {
		errs = append(errs, <-ended)
		cancel() // The shop is open as a whole or not at all.
	}
	return errors.Join(errs...)
}

func serveOne(ctx context.Context, i Instance, l net.Listener) error {
	const patience = 2 * time.Second
	server := &http.Server{Handler: i.Handler, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if server.Shutdown(last) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s %s: %w", i.Service, i.Version, err)
}
