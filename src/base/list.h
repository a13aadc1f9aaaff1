/* Intrusive doubly linked list with a head node. A node is on at most one list; a node that is on none points
 * to itself, so removing it again does nothing. Owner: whoever embeds the node. */
#ifndef WR_LIST_H
#define WR_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct wr_list {
    struct wr_list *prev, *next;
};

#define WR_CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void wr_list_init(struct wr_list *list)
{
    list->prev = list->next = list;
}

static inline bool wr_list_empty(const struct wr_list *list)
{
    return list->next == list;
}

static inline void wr_list_remove(struct wr_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    wr_list_init(node);
}

/* The node must be on no list. */
static inline void wr_list_append(struct wr_list *list, struct wr_list *node)
{
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void wr_list_prepend(struct wr_list *list, struct wr_list *node)
{
    wr_list_append(list->next, node);
}

static inline struct wr_list *wr_list_first(struct wr_list *list)
{
    return wr_list_empty(list) ? NULL : list->next;
}

static inline struct wr_list *wr_list_last(struct wr_list *list)
{
    return wr_list_empty(list) ? NULL : list->prev;
}

#endif
