// Swagger UI, which BentoML brings along, on this server's own description and nothing else.
window.SwaggerUIBundle({ url: "docs.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
