package bookshop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// throughProxy is a client as http_proxy makes one: what it asks for goes by the
// proxy at an address, which is that of a sidecar here.
func throughProxy(proxy string) *http.Client {
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})},
	}
}

var errNoBook = errors.New("there is no such book")

// fetchBook asks the books service for a book.
func fetchBook(ctx context.Context, mesh *http.Client, id string) (book bookV1, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://books.mesh/books/"+url.PathEscape(id), nil)
	if err != nil {
		return book, err
	}
	response, err := mesh.Do(r)
	if err != nil {
		return book, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return book, errNoBook
	default:
		return book, fmt.Errorf("the books service answers %s", response.Status)
	}
	const longest = 64 << 10
	return book, json.NewDecoder(io.LimitReader(response.Body, longest)).Decode(&book)
}

// askForBook is fetchBook for a handler. Where there is no book to go on with it
// has answered: with the status missing, or 502 where nobody can tell.
func askForBook(w http.ResponseWriter, r *http.Request, mesh *http.Client, id string, missing int) (book bookV1, ok bool) {
	book, err := fetchBook(r.Context(), mesh, id)
	switch {
	case err == nil:
		return book, true
	case errors.Is(err, errNoBook):
		refuse(w, missing, "There is no such book.")
	default:
		refuse(w, http.StatusBadGateway, "The books service cannot be asked.")
	}
	return book, false
}
