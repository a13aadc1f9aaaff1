-- Two logins that never meet, and contacts that belong to whoever the claims name.
create role web_anon nologin;
create role app_anon login noinherit in role web_anon;
create role app_service login bypassrls;

create function claim(name text) returns text stable language sql as
    $$ select nullif(current_setting('request.jwt.claims', true), '')::json ->> name $$;

create table contacts (
    id int generated always as identity primary key,
    owner text not null default claim('sub'),
    name text not null,
    unique (owner, name)
);
alter table contacts enable row level security;
create policy own on contacts using (owner = claim('sub')) with check (owner = claim('sub'));
grant select, insert on contacts to web_anon;
grant select on contacts to app_service;
insert into contacts (owner, name) values ('ada', 'Charles'), ('ada', 'Mary'), ('grace', 'Howard');
