// Package bookshop is what Weir is shown with: a shop of three small HTTP
// services, two of them in two versions that live side by side.
//
//	books    v1 127.0.0.1:9001   v2 127.0.0.1:9002   the catalogue; v2 knows ISBNs and how many are left
//	reviews  v1 127.0.0.1:9003   v2 127.0.0.1:9004   what readers say; v2 knows stars
//	orders   v1 127.0.0.1:9005                       what was bought, by the consumer that the edge names
//
// Each answers with the header x-served-by, and describes itself at
// /openapi.yaml. [Manifest] declares the edge before them: bookshop.yaml.
//
// They call each other through the mesh: reviews and orders ask books for a book,
// by plain HTTP to http://books.mesh/ through the sidecar beside them as their
// HTTP proxy. A service at port 900N has a sidecar whose inbound listener is at
// 910N and whose outbound one is at 920N.
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
	"slices"
	"strconv"
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
	// Inbound and Outbound are where the sidecar beside it listens.
	Inbound, Outbound string
	Handler           http.Handler

	mesh *http.Client // by which it calls others
}

// Name is the instance's own, such as books-v1.
func (i Instance) Name() string { return i.Service + "-" + i.Version }

// Instances returns the shop, with nothing ordered yet.
func Instances() []Instance { return instances(throughProxy) }

// instances are the shop, whose services call each other by what client makes of
// the address of a proxy.
func instances(client func(proxy string) *http.Client) []Instance {
	return []Instance{
		instance(1, "books", "v1", client, booksV1),
		instance(2, "books", "v2", client, booksV2),
		instance(3, "reviews", "v1", client, reviewsV1),
		instance(4, "reviews", "v2", client, reviewsV2),
		instance(5, "orders", "v1", client, newOrders().routes),
	}
}

func instance(n int, service, version string, client func(proxy string) *http.Client, routes func(*http.ServeMux, *http.Client)) Instance {
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+n)) }
	mux, mesh := http.NewServeMux(), client(at(9200))
	routes(mux, mesh)
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		http.ServeFileFS(w, r, documents, "openapi/"+service+"-"+version+".yaml")
	})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", service+"-"+version)
		mux.ServeHTTP(w, r)
	})
	return Instance{Service: service, Version: version, Address: at(9000), Inbound: at(9100), Outbound: at(9200), Handler: handler, mesh: mesh}
}

// Run serves the instances of those names, or the whole shop, until the context
// ends. It returns once every service has stopped; an error when one cannot be
// served.
func Run(ctx context.Context, logger *slog.Logger, names ...string) error {
	shop := Instances()
	if len(names) > 0 {
		known := shop
		shop = nil
		for _, name := range names {
			i := slices.IndexFunc(known, func(i Instance) bool { return i.Name() == name })
			if i < 0 {
				return fmt.Errorf("there is no %s in the bookshop: its instances are books-v1, books-v2, reviews-v1, reviews-v2 and orders-v1", name)
			}
			shop = append(shop, known[i])
		}
	}
	return serve(ctx, logger, shop, func(address string) (net.Listener, error) {
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
	defer i.mesh.CloseIdleConnections()
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s %s: %w", i.Service, i.Version, err)
}
