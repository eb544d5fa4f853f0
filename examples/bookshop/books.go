package bookshop

import (
	"net/http"
)

// bookV1 is a book as the catalogue's first version shows it.
type bookV1 struct {
	ID     string `json:"id"`
	Title  string `json:"title"`
	Author string `json:"author"`
	// Price and Cost are in cents: what the shop asks, and what it pays.
	Price int `json:"price"`
	Cost  int `json:"cost"`
}

// bookV2 is a bookV1 and what was added.
type bookV2 struct {
	bookV1
	ISBN13 string `json:"isbn13"`
	Left   int    `json:"left"`
}

func catalogue() []bookV2 {
	return []bookV2{
		{bookV1{"1", "The Weir Keeper", "Ada Marsh", 1850, 910}, "9780000000019", 12},
		{bookV1{"2", "Locks, Dams and Other Gates", "Tom Sluice", 2400, 1320}, "9780000000026", 3},
		{bookV1{"3", "Upstream", "Ines Rivera", 1275, 640}, "9780000000033", 0},
		{bookV1{"4", "A Field Guide to Backpressure", "Noor Delta", 3100, 1700}, "9780000000040", 41},
	}
}

func findBook(id string) (bookV2, bool) {
	for _, b := range catalogue() {
		if b.ID == id {
			return b, true
		}
	}
	return bookV2{}, false
}

func booksV1(mux *http.ServeMux, _ *http.Client) {
	books(mux, func(b bookV2) any { return b.bookV1 })
}

func booksV2(mux *http.ServeMux, _ *http.Client) {
	books(mux, func(b bookV2) any { return b })
}

func books(mux *http.ServeMux, show func(bookV2) any) {
	mux.HandleFunc("GET /books", func(w http.ResponseWriter, _ *http.Request) {
		var all []any
		for _, b := range catalogue() {
			all = append(all, show(b))
		}
		answer(w, http.StatusOK, all)
	})
	mux.HandleFunc("GET /books/{id}", func(w http.ResponseWriter, r *http.Request) {
		b, ok := findBook(r.PathValue("id"))
		if !ok {
			refuse(w, http.StatusNotFound, "There is no such book.")
			return
		}
		answer(w, http.StatusOK, show(b))
	})
}
